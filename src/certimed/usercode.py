"""Models that are Python code of the user's own: the one place where certimed runs code it did not ship."""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import re
import sys
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from certimed.errors import CertimedError, InputError

PREFIX = "python:"
_SAID = 200
_SPEC = re.compile(r"python:([A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*):([A-Za-z_]\w*)", re.ASCII)


@dataclass(frozen=True)
class UserModel:
    """What a factory returned.

    Attributes:
        model: the returned callable, e.g. an ``nn.Module``.
        source_sha256: digest of the module's source file, part of the model's identity beside its weights, constants
            and the code of its classes (:func:`certimed.models.behaviour_digest`).
    """

    model: Callable[..., Any]
    source_sha256: str


def is_user_code(spec: str) -> bool:
    """Whether a model is named as code: ``python:module:factory``."""
    return spec.startswith(PREFIX)


def load_user_model(spec: str, *, allow_code: bool) -> UserModel:
    """Import ``module`` and call ``factory()`` of a ``python:module:factory``.

    Args:
        spec: the name; the module must be importable: installed, on PYTHONPATH, or in the current folder.
        allow_code: the person's explicit consent. Nothing is imported without it: not even a look is harmless.

    Raises:
        InputError: no consent, a name that is none, a module or factory that is not there or raises (the sentence says
            where; ``__cause__`` has the whole of it), a result that cannot be called.
    """
    name, build = _found(spec, allow_code, "name the one that returns the model")
    model = _running(spec, build)
    if not callable(model):
        raise InputError(f"{spec} returned {type(model).__name__}, which cannot be called as a model")
    return UserModel(model, _source_digest(name))


def load_user_function(spec: str, *, allow_code: bool) -> Callable[..., Any]:
    """The function of a ``python:module:function``, itself; consent and errors as for :func:`load_user_model`."""
    return _found(spec, allow_code, "name the one that measures")[1]


def _found(spec: str, allow_code: bool, remedy: str) -> tuple[str, Callable[..., Any]]:
    """The module's name, and the function in it."""
    found = _SPEC.fullmatch(spec)
    if found is None:
        raise InputError(f"{spec!r:.120} is not python:MODULE:FACTORY; write e.g. python:my_models:build")
    if not allow_code:
        raise InputError(f"{spec} runs Python code; read it, and add --allow-code if you trust it")
    name, factory = found.groups()
    # As ``python -m`` does, but last, so that a file here cannot stand in for an installed library.
    if str(Path.cwd()) not in sys.path:
        sys.path.append(str(Path.cwd()))
    if importlib.util.find_spec(name.partition(".")[0]) is None:
        raise InputError(
            f"there is no module {name} to import; install it, put its folder on PYTHONPATH, or start from that folder"
        )
    module = _running(spec, lambda: importlib.import_module(name))
    build = getattr(module, factory, None)
    if not callable(build):
        raise InputError(f"the module {name} has no function {factory}; {remedy}")
    return name, build


def input_channels(network: Any) -> int:
    """Channels a module takes, as its first convolution says; 3 where it has none."""
    first = next((part for part in network.modules() if isinstance(getattr(part, "in_channels", None), int)), None)
    return 3 if first is None else int(first.in_channels)


def _running(spec: str, step: Callable[[], Any]) -> Any:
    """Do one step of the user's code; what it raises becomes a sentence that says where."""
    try:
        return step()
    except CertimedError:
        raise
    # The code is the user's: it may raise anything.
    except Exception as error:
        place = traceback.extract_tb(error.__traceback__)[-1]
        said = " ".join(str(error).split())[:_SAID]
        raise InputError(
            f"{spec} could not be built ({type(error).__name__}: {said}, in {Path(place.filename).name} line "
            f"{place.lineno}); run the factory in Python to see more"
        ) from error


def _source_digest(name: str) -> str:
    path = getattr(sys.modules[name], "__file__", None)
    return hashlib.sha256(Path(path).read_bytes() if path else b"").hexdigest()
