"""SIGTERM and Ctrl-C outside any verb: a sentence and the usual exit codes instead of a traceback."""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

EXIT_TERMINATED = 128 + int(signal.SIGTERM)
EXIT_INTERRUPTED = 128 + int(signal.SIGINT)


class Terminated(BaseException):
    """The process was asked to stop (SIGTERM), e.g. by a scheduler at the end of its time."""


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
