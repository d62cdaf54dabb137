"""Where on the image side of a model something can be learnt: found by watching one image go through.

No table of architectures: what an image does not pass (a text tower, a captioning decoder, an unused head) is never
touched, and a new family of models needs nothing here.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from certimed.errors import InputError, ModelError

TARGETS = ("all", "linear", "attention", "mlp")
"""Layers that LoRA may be put on: all linear and convolution layers; linear ones; those of attention; the others."""

_CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
_NORMS = (nn.LayerNorm, nn.GroupNorm, nn.modules.batchnorm._BatchNorm, nn.modules.instancenorm._InstanceNorm)
_ATTENTION = re.compile(r"att(e)?n", re.IGNORECASE)
_PAIR = 2


@dataclass(frozen=True)
class Blocks:
    """The transformer blocks of a ViT.

    Attributes:
        names: of the modules, in order.
        axis: of the tokens in what they are given.
        width: of a token.
    """

    names: tuple[str, ...]
    axis: int
    width: int


@dataclass(frozen=True)
class Places:
    """Names of modules that an image passes.

    Attributes:
        linear: linear layers, and attention with fused projections.
        convolutions: without groups.
        norms: layers with a learnt scale.
        blocks: of a ViT; None for other networks.
    """

    linear: tuple[str, ...]
    convolutions: tuple[str, ...]
    norms: tuple[str, ...]
    blocks: Blocks | None

    def targets(self, which: str) -> tuple[str, ...]:
        """Layers for LoRA, see :data:`TARGETS`; InputError where there is none."""
        attention = tuple(name for name in self.linear if _ATTENTION.search(name))
        found = {
            "all": (*self.linear, *self.convolutions),
            "linear": self.linear,
            "attention": attention,
            "mlp": tuple(name for name in self.linear if name not in attention),
        }
        if which not in found:
            raise InputError(f"targets={which!r} is unknown; use one of {', '.join(TARGETS)}")
        if not found[which]:
            raise InputError(f"the network has no layers for targets={which!r}; use all")
        return found[which]


def body(model: Any) -> Callable[[Tensor], Tensor]:
    """What an image goes through: features of an encoder, scores of any other network."""
    passed: Callable[[Tensor], Tensor] = getattr(model, "encode_image", model)
    return passed


def places(model: nn.Module, shape: tuple[int, ...]) -> Places:
    """Watch two grey images of this shape ``(C, *space)`` go through.

    Raises:
        InputError: nothing in the model can be learnt.
        ModelError: the model fails on them.
    """
    passed: dict[str, Tensor] = {}
    hooks = [part.register_forward_hook(_watch(name, passed)) for name, part in model.named_modules() if name]
    device = next((value.device for value in model.parameters()), torch.device("cpu"))
    try:
        with torch.no_grad():
            body(model)(torch.full((_PAIR, *shape), 0.5, device=device))
    except ModelError:
        raise
    # The network is the user's: it may raise anything.
    except Exception as error:
        raise ModelError(f"the model fails on a grey image {shape} ({type(error).__name__}: {error})") from error
    finally:
        for hook in hooks:
            hook.remove()
    modules = dict(model.named_modules())
    own = {name: modules[name] for name in passed}
    found = Places(
        tuple(name for name, part in own.items() if type(part) is nn.Linear or _is_fused(part)),
        tuple(name for name, part in own.items() if isinstance(part, _CONVOLUTIONS) and part.groups == 1),
        tuple(name for name, part in own.items() if isinstance(part, _NORMS) and part.weight is not None),
        _blocks(modules, passed),
    )
    if not (found.linear or found.convolutions or found.norms):
        raise InputError("the model has no layers of PyTorch to learn in (an ONNX file has none); export it as PyTorch")
    return found


def _is_fused(part: nn.Module) -> bool:
    """Attention whose projections are one tensor."""
    return isinstance(part, nn.MultiheadAttention) and part.in_proj_weight is not None


def _watch(name: str, passed: dict[str, Tensor]) -> Callable[..., None]:
    def hook(module: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
        passed[name] = inputs[0] if inputs and isinstance(inputs[0], Tensor) else torch.empty(0)

    return hook


def _blocks(modules: dict[str, nn.Module], passed: dict[str, Tensor]) -> Blocks | None:
    """The longest list of equal modules that all take tokens of one shape."""
    best: Blocks | None = None
    for name, part in modules.items():
        if not isinstance(part, nn.ModuleList | nn.Sequential) or len(part) < 2:
            continue
        names = tuple(f"{name}.{place}" for place, _ in part.named_children())
        inputs = [passed[one] for one in names if one in passed]
        shapes = {tuple(one.shape) for one in inputs}
        kinds = {type(one) for one in part}
        if len(inputs) < len(names) or len(shapes) != 1 or len(kinds) != 1:
            continue
        (shape,) = shapes
        if len(shape) == 3 and _PAIR in shape[:2] and (best is None or len(names) > len(best.names)):
            best = Blocks(names, 1 if shape[0] == _PAIR else 0, shape[2])
    return best
