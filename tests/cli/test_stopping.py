"""SIGTERM and Ctrl-C: a sentence and the usual exit code."""

import os
import signal
import subprocess
import sys
import time


def test_sigterm_is_a_sentence_and_code_143(tmp_path):
    code = "\n".join(
        [
            "import signal, time",
            "signal.signal(signal.SIGINT, signal.default_int_handler)  # a test run in the background has it ignored",
            "from certimed.cli.stopping import orderly_stop",
            "with orderly_stop():",
            "    print('ready', flush=True)",
            "    time.sleep(60)",
        ]
    )
    for number, exit_code, words in ((signal.SIGTERM, 143, "stopped by SIGTERM"), (signal.SIGINT, 130, "by the user")):
        with subprocess.Popen([sys.executable, "-c", code], stdout=-1, stderr=-1, text=True) as child:
            assert child.stdout.readline() == "ready\n"
            time.sleep(0.05)
            os.kill(child.pid, number)
            _, said = child.communicate()
        assert child.returncode == exit_code
        assert words in said
        assert "--resume RUN" in said
        assert "Traceback" not in said
