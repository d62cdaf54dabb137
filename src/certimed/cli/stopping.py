"""What surrounds every verb: SIGTERM and Ctrl-C are a sentence and the usual exit codes, and libraries are silent."""

from __future__ import annotations

import os
import signal
import sys
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

EXIT_TERMINATED = 128 + int(signal.SIGTERM)
EXIT_INTERRUPTED = 128 + int(signal.SIGINT)


class Terminated(BaseException):
    """The process was asked to stop (SIGTERM), e.g. by a scheduler at the end of its time."""


_QUIET = {
    "PYTHONWARNINGS": "ignore",
    "TRANSFORMERS_VERBOSITY": "error",
    "DIFFUSERS_VERBOSITY": "error",
    "HF_HUB_VERBOSITY": "error",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
}


def quiet_libraries() -> None:
    """Let libraries say nothing of their own on the console, workers' included: what a person must know is said by
    certimed. Whoever asks for their warnings (``python -W``, or one of the variables) gets them."""
    if not sys.warnoptions:
        warnings.simplefilter("ignore")
    for name, value in _QUIET.items():
        os.environ.setdefault(name, value)


@contextmanager
def orderly_stop() -> Iterator[None]:
    """Let SIGTERM unwind the program like Ctrl-C: files and locks are closed, workers are ended, a sentence is said."""
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, _terminate)
    try:
        yield
    except Terminated:
        _say("stopped by SIGTERM")
        sys.exit(EXIT_TERMINATED)
    except KeyboardInterrupt:
        _say("stopped by the user")
        sys.exit(EXIT_INTERRUPTED)


def _say(what: str) -> None:
    print(f"{what}; finished images are kept, go on with: certimed certify --resume RUN", file=sys.stderr)


def _terminate(number: int, frame: FrameType | None) -> None:
    raise Terminated
