"""Identity is behaviour: one digest over everything about a model that changes what it answers."""

from __future__ import annotations

import enum
import functools
import hashlib
import importlib.metadata
import inspect
import types
from collections.abc import Callable, Mapping
from dataclasses import fields, is_dataclass
from pathlib import PurePath
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

# Of these libraries a class is named and not read: their versions are recorded beside a certificate.
_NAMED_ONLY = {
    *("builtins", "certimed", "diffusers", "monai", "numpy", "open_clip", "segmentation_models_pytorch", "timm"),
    *("torch", "torchvision", "transformers"),
}
_OF_EVERY_MODULE = frozenset(vars(nn.Module())) - {"_forward_hooks", "_forward_pre_hooks"}
# Where a model was loaded from, and by which version of a library, is not what it does.
_NO_BEHAVIOUR = _OF_EVERY_MODULE | {"_name_or_path", "name_or_path", "transformers_version", "_commit_hash"}
# Counters of training steps, and indices that libraries recompute: evaluation reads neither from a file.
_NO_WEIGHTS = ("num_batches_tracked", "position_ids", "relative_position_index")
_DEEPEST = 12
_Write = Callable[[bytes | memoryview], None]


def behaviour_digest(
    module: nn.Module | None, about: Mapping[str, Any], *, state: Mapping[str, Tensor] | None = None
) -> str:
    """Hex SHA-256 over what a model does: its weights, and the settings that change its answers.

    A ``module`` is walked: of every part the type; parameters and buffers, persistent or not; every attribute of the
    object and of its class that is a plain value (numbers, booleans, strings, dtypes, enumerations, arrays, tensors,
    and tuples, lists, sets, mappings, dataclasses and objects of those); modules in plain lists; functions and hooks by
    their code, constants, defaults, the values they close over and the plain globals and functions they name; classes
    that belong to no library of models by the code of their methods. Two builds of the same thing have one digest on
    every device; a changed constant, buffer, weight or line of code has another. Training mode is not told apart, as it
    is refused elsewhere.

    What it cannot see: global objects and attributes of modules that a function reads, code in C or CUDA, environment
    and backend flags, files read at call time, the code of the libraries themselves (their versions are recorded), and
    anything changed after the digest was taken. So an object whose digest was found by walking someone's code is not
    declared complete (``identity_complete`` is False), and caches tell such objects apart by the living object. Code
    enters as Python compiles it, so one's own module has another digest under another version of Python.

    Args:
        module: what to walk; None where ``about`` and ``state`` decide the function, as for networks that a library
            builds from a configuration: then the digest does not depend on how a version of the library names things.
        about: settings around the module, by name.
        state: tensors by name, instead of or beside those of the module.

    Raises:
        TypeError: neither a module nor a state is given.
    """
    if module is None and state is None:
        raise TypeError("behaviour_digest needs a module or its state")
    digest = hashlib.sha256()
    walk = _Walk(digest.update)
    walk.value(dict(about), 0)
    walk.tensors(state or {})
    if module is not None:
        walk.module(module, 0)
    return digest.hexdigest()


def adapter_identity(
    network: nn.Module,
    about: Mapping[str, Any],
    configuration: Mapping[str, Any] | None,
    state: Mapping[str, Tensor] | None = None,
) -> tuple[str, bool]:
    """Identity of a network in an adapter, and whether it is declared complete.

    Args:
        network: someone's code, which is walked, or what a library built.
        about: the adapter's settings.
        configuration: what a library built the network from: with the tensors it decides the function. None: nothing
            does but the code.
        state: tensors to digest instead of the network's own; of built networks only.
    """
    if configuration is None:
        return behaviour_digest(network, about), False
    tensors = network.state_dict() if state is None else state
    return behaviour_digest(None, {**about, "configuration": configuration}, state=tensors), True


def identity_of(part: object) -> str:
    """The ``identity`` of a model, denoiser or pair; for a module that has none, its :func:`behaviour_digest`."""
    own = getattr(part, "identity", None)
    if isinstance(own, str):
        return own
    if isinstance(part, nn.Module):
        return behaviour_digest(part, {})
    raise TypeError(f"{type(part).__name__} has no identity and is no nn.Module")


def is_complete(part: object) -> bool:
    """Whether equal identities are declared to mean equal answers: True of certimed's own adapters only."""
    return getattr(part, "identity_complete", False) is True


def combined(*parts: object) -> str:
    """Hex SHA-256 over identities and plain values in order: the identity of what is made of them."""
    digest = hashlib.sha256()
    _Walk(digest.update).value(parts, 0)
    return digest.hexdigest()


def model_versions(*parts: object) -> dict[str, str]:
    """Versions of the distributions that built these models and denoisers, for provenance.

    A part names them in ``libraries``; of any other module they are found from the classes of its parts.
    """
    names: set[str] = set()
    for part in parts:
        own = getattr(part, "libraries", None)
        if own is not None:
            names.update(own)
        elif isinstance(part, nn.Module):
            names.update(libraries_of(part))
    return {name: _version(name) for name in sorted(names)}


def libraries_of(module: nn.Module) -> tuple[str, ...]:
    """Distributions whose classes a module is made of, PyTorch and certimed aside."""
    packages = {kind.__module__.partition(".")[0] for part in module.modules() for kind in type(part).__mro__[:-1]}
    known = _distributions()
    return tuple(sorted({known[name][0] for name in packages if name in known} - {"torch", "certimed"}))


@functools.lru_cache(maxsize=1)
def _distributions() -> Mapping[str, list[str]]:
    return importlib.metadata.packages_distributions()


def _version(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return "unknown"


class _Walk:
    """Writes values as bytes that two different values never share; an object met again is named by its number."""

    def __init__(self, write: _Write) -> None:
        self._write = write
        self._met: dict[int, int] = {}
        self._kept: list[object] = []

    def value(self, value: object, depth: int) -> None:
        """Any value; what is of no known kind is written as its type."""
        if value is None or isinstance(value, bool | int | str | bytes | complex | torch.dtype | PurePath):
            self._mark(type(value).__name__, repr(value))
        elif isinstance(value, float):
            self._mark("float", value.hex())
        elif isinstance(value, enum.Enum):
            self._mark(_name(type(value)), value.name)
        elif isinstance(value, np.generic | np.ndarray):
            self._array(np.asarray(value), depth)
        elif isinstance(value, torch.device):
            self._mark("device", "")
        elif depth > _DEEPEST:
            self._mark("deep", _name(type(value)))
        elif isinstance(value, Mapping | list | tuple | set | frozenset | Tensor) or not self._again(value):
            # Whether equal plain values are one object or two is no behaviour; the depth ends circles of them.
            self._compound(value, depth + 1)

    def tensors(self, state: Mapping[str, Tensor]) -> None:
        """Named tensors, in the order of their names; independent of the device."""
        for name in sorted(state):
            if not name.endswith(_NO_WEIGHTS):
                self._mark("tensor", name)
                self._tensor(state[name])

    def module(self, module: nn.Module, depth: int) -> None:
        """A module, its constants, its own tensors, then its children by name."""
        self._type(type(module))
        if isinstance(module, torch.jit.ScriptModule):
            self._mark("script", str(module.code) if hasattr(module, "forward") else "")
        self._attributes(module, depth)
        self.tensors({name: value for name, value in module._parameters.items() if value is not None})
        self.tensors({name: value for name, value in module._buffers.items() if value is not None})
        for name, child in module._modules.items():
            self._mark("child", name)
            self.value(child, depth)

    def _compound(self, value: object, depth: int) -> None:
        if isinstance(value, Tensor):
            self._tensor(value)
        elif isinstance(value, nn.Module):
            # Depth counts plain objects: a network may be nested as deeply as it likes.
            self.module(value, 0)
        elif isinstance(value, Mapping):
            self._mark("mapping", str(len(value)))
            for key in sorted(value, key=repr):
                self.value(key, depth)
                self.value(value[key], depth)
        elif isinstance(value, list | tuple):
            self._mark("sequence", str(len(value)))
            for item in value:
                self.value(item, depth)
        elif isinstance(value, set | frozenset):
            self._mark("set", repr(sorted(map(combined, value))))
        elif isinstance(value, type):
            self._type(value)
        elif isinstance(value, functools.partial):
            self._mark("partial", "")
            self.value([value.func, value.args, value.keywords], depth)
        elif isinstance(value, types.MethodType):
            self._mark("method", "")
            self.value([value.__func__, value.__self__], depth)
        elif isinstance(value, types.FunctionType):
            self._function(value, depth)
        elif is_dataclass(value):
            self._type(type(value))
            for field in fields(value):
                self._mark("field", field.name)
                self.value(getattr(value, field.name), depth)
        else:
            self._type(type(value))
            self._mark("object", getattr(value, "__qualname__", ""))
            if not isinstance(value, types.ModuleType):
                self._attributes(value, depth)

    def _attributes(self, value: object, depth: int) -> None:
        own = getattr(value, "__dict__", {})
        for name in sorted(own):
            # An empty table of hooks is that of every module.
            if name not in _NO_BEHAVIOUR and not (name.endswith("_hooks") and not own[name]):
                self._mark("attribute", name)
                hooks = isinstance(own[name], Mapping) and name.endswith("_hooks")
                self.value(list(own[name].values()) if hooks else own[name], depth)

    def _type(self, kind: type) -> None:
        """A class by its name; of one's own also constants and methods, inherited ones too."""
        self._mark("type", _name(kind))
        if self._again(kind):
            return
        for base in kind.__mro__:
            if base.__module__.partition(".")[0] in _NAMED_ONLY:
                continue
            for name, member in sorted(vars(base).items()):
                if isinstance(member, property):
                    member = member.fget
                if isinstance(member, classmethod | staticmethod):
                    member = member.__func__
                plain = isinstance(member, bool | int | float | str | tuple | list | dict | Tensor | types.FunctionType)
                if plain and not (name.startswith("__") and not inspect.isfunction(member)):
                    self._mark("member", f"{base.__qualname__}.{name}")
                    self.value(member, 0)

    def _function(self, function: types.FunctionType, depth: int) -> None:
        self._mark("function", _name(function))
        self.value([function.__defaults__, function.__kwdefaults__], depth)
        if function.__module__ and function.__module__.partition(".")[0] in _NAMED_ONLY:
            return
        self._code(function.__code__, function.__globals__, depth)
        for cell in function.__closure__ or ():
            try:
                self.value(cell.cell_contents, depth)
            except ValueError:  # not filled yet
                self._mark("cell", "")

    def _code(self, code: types.CodeType, around: Mapping[str, Any], depth: int) -> None:
        """Instructions, constants, and plain globals they name; not where in a file they stand."""
        self._mark("code", repr((code.co_code, code.co_names, code.co_varnames, code.co_freevars)))
        for constant in code.co_consts:
            if isinstance(constant, types.CodeType):
                self._code(constant, around, depth)
            else:
                self.value(constant, depth)
        for name in code.co_names:
            if isinstance(around.get(name), bool | int | float | str | tuple | Tensor | types.FunctionType):
                self._mark("global", name)
                self.value(around[name], depth)

    def _tensor(self, tensor: Tensor) -> None:
        value = tensor.detach()
        if value.device.type == "meta":
            self._mark("meta", f"{value.dtype} {tuple(value.shape)}")
            return
        if value.is_quantized:
            value = value.dequantize()
        value = value.to_dense() if value.layout != torch.strided else value
        self._mark("values", f"{value.dtype} {tuple(value.shape)}")
        if value.numel():
            raw: Any = value.cpu().contiguous().view(-1).view(torch.uint8).numpy()
            self._write(raw.data)

    def _array(self, array: np.ndarray[Any, Any], depth: int) -> None:
        self._mark("array", f"{array.dtype.str} {array.shape}")
        if array.dtype.hasobject:
            self.value(array.tolist(), depth + 1)
        else:
            self._write(np.ascontiguousarray(array).tobytes())

    def _again(self, value: object) -> bool:
        number = self._met.get(id(value))
        if number is None:
            self._met[id(value)] = len(self._met)
            self._kept.append(value)  # so that no other object gets its id meanwhile
            return False
        self._mark("again", str(number))
        return True

    def _mark(self, kind: str, text: str) -> None:
        data = text.encode("utf-8", "surrogatepass")
        self._write(f"\0{kind}\0{len(data)}\0".encode() + data)


def _name(thing: Any) -> str:
    return f"{thing.__module__}.{thing.__qualname__}"
