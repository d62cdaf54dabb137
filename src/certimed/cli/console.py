"""What every verb shares: consoles that read no markup, harmless text, and errors as one sentence with an exit code."""

from __future__ import annotations

import errno
import unicodedata
from collections.abc import Iterator
from contextlib import contextmanager

import typer
from rich.console import Console, RenderableType
from rich.text import Text

from certimed.errors import CertimedError

EXIT_FALSE = 1
EXIT_BAD_INPUT = 2
EXIT_SOME_FAILED = 3
EXIT_STOPPED = 130

# Text of people and files is never read as markup or emoji; what is styled is styled by Text objects.
out = Console(markup=False, emoji=False, highlight=False, soft_wrap=True)
err = Console(stderr=True, markup=False, emoji=False, highlight=False, soft_wrap=True)

_LONGEST = 200
# Controls, format characters (bidirectional overrides among them), surrogates, private and unassigned ones, line ends.
_UNPRINTABLE = ("Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp")


def harmless(text: str, longest: int = _LONGEST) -> str:
    """Text from a file or a file name for a terminal: no control characters, bounded."""
    plain = "".join(" " if unicodedata.category(char) in _UNPRINTABLE else char for char in text)
    return plain if len(plain) <= longest else plain[: longest - 1] + "…"


def say(*parts: RenderableType, style: str | None = None) -> None:
    """Print to standard output; strings are printed as they are."""
    out.print(*parts, style=style, sep="")


def tell(*parts: RenderableType, style: str | None = None) -> None:
    """Print to standard error; strings are printed as they are."""
    err.print(*parts, style=style, sep="")


@contextmanager
def one_sentence_errors() -> Iterator[None]:
    """Turn certimed's errors, and those of the system, into one sentence on standard error and exit code 2."""
    try:
        yield
    except CertimedError as error:
        tell(Text("error:", "bold red"), " ", harmless(str(error), 1000))
        raise typer.Exit(EXIT_BAD_INPUT) from error
    except OSError as error:  # what no one foresaw: a name too long, a disk that is gone
        if error.errno == errno.EPIPE:
            raise
        where = "" if error.filename is None else f": {error.filename}"
        tell(Text("error:", "bold red"), " ", harmless(f"{error.strerror or error}{where}", 1000))
        raise typer.Exit(EXIT_BAD_INPUT) from error
    except KeyboardInterrupt as error:
        tell("stopped by the user; what was written before is kept")
        raise typer.Exit(EXIT_STOPPED) from error
