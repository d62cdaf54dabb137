"""Errors a person can act on: each message is one sentence that says what is wrong, where, and how to mend it."""

from __future__ import annotations

import importlib
from types import ModuleType


class CertimedError(Exception):
    """Base of every error certimed raises on purpose; the command line prints its message and exits with code 2."""


class InputError(CertimedError, ValueError):
    """An argument, file or folder cannot be used as given."""


class ImageError(InputError):
    """One image cannot be read or used; a run records it as failed and goes on."""


class ModelError(CertimedError, RuntimeError):
    """A model broke its contract: wrong score shape, wrong input size, scores that are not finite."""


class MissingExtraError(CertimedError, ImportError):
    """An optional part is not installed; the message names the pip command that installs it."""


def require(module: str, extra: str) -> ModuleType:
    """Import an optional dependency, or say which pip command installs it.

    Args:
        module: dotted module name, e.g. ``"pydicom"``.
        extra: the certimed extra that brings it, e.g. ``"medical"``.

    Raises:
        MissingExtraError: the module cannot be imported.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise MissingExtraError(
            f"{module} is needed here and cannot be imported ({error}); "
            f"install it with: pip install 'certimed[{extra}]'"
        ) from error
