"""What is learnt on the image side of a frozen model, and how it is put in and taken out again.

Three kinds, alone or together:

* ``"lora"``: low-rank updates ``W + (scale / rank) B A`` of weights (Hu et al., ICLR 2022), merged after tuning;
* ``"visual-prompt"``: tokens beside an image's own in a ViT, at the first block or at each (Jia et al., ECCV 2022);
* ``"layernorm"``: scale and shift of normalisation layers.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from certimed.adapters.places import TARGETS, Blocks, body, places
from certimed.errors import InputError, require

LORA, VISUAL_PROMPT, LAYERNORM = "lora", "visual-prompt", "layernorm"
KINDS = (LORA, VISUAL_PROMPT, LAYERNORM)
_TOKENS = "visual_prompt"
_SPREAD = 0.02


@dataclass(frozen=True)
class Parts:
    """What is learnt.

    Attributes:
        kinds: out of :data:`KINDS`.
        rank, scale: of LoRA; the update is ``scale / rank * B @ A``, zero at the start.
        targets: layers of LoRA, see :data:`~certimed.adapters.TARGETS`.
        tokens: number of visual prompt tokens.
        deep: tokens of its own for each block, instead of the first block's.

    Raises:
        InputError: an unknown kind, or a number that is none.
    """

    kinds: tuple[str, ...] = (LORA,)
    rank: int = 8
    scale: float = 16.0
    targets: str = "all"
    tokens: int = 8
    deep: bool = False

    def __post_init__(self) -> None:
        unknown = [kind for kind in self.kinds if kind not in KINDS]
        if unknown or not self.kinds or len(set(self.kinds)) < len(self.kinds):
            raise InputError(f"kinds {list(self.kinds)} must be distinct names out of {', '.join(KINDS)}")
        if self.targets not in TARGETS:
            raise InputError(f"targets={self.targets!r} is unknown; use one of {', '.join(TARGETS)}")
        if self.rank < 1 or self.tokens < 1 or not self.scale > 0:
            raise InputError(f"rank={self.rank}, tokens={self.tokens} and scale={self.scale:g} must be positive")


class Installed:
    """A copy of a model with learnable parts; the model itself is left as it is, and shares all other tensors.

    At the start LoRA and affine parts leave the model's answers as they are; visual prompt tokens do not.

    Args:
        model: a vision-language model, a classifier or a segmentation network, frozen.
        parts: what is learnt.
        shape: ``(C, *space)`` of an image in the certified space.
        seed: of initial values.

    Attributes:
        model: the copy.
        learnt: its learnable tensors by name.

    Raises:
        InputError: the network has no place for the parts.
        MissingExtraError: peft is not installed and LoRA is wanted.
    """

    def __init__(self, model: nn.Module, parts: Parts, shape: tuple[int, ...], *, seed: int = 0) -> None:
        found = places(model, shape)
        # Every tensor is shared; those that will change are copied one by one below.
        shared = {id(one): one for one in [*model.parameters(), *model.buffers()]}
        self.model: Any = copy.deepcopy(model, shared)
        self._tuner: Any = None
        self._fused: list[tuple[nn.Module, str]] = []
        with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # peft warns of layers that tie weights elsewhere
            torch.manual_seed(seed)
            if LORA in parts.kinds:
                self._low_rank(parts, found.targets(parts.targets))
            if LAYERNORM in parts.kinds:
                self._affine(found.norms)
            if VISUAL_PROMPT in parts.kinds:
                self._prompted(parts, found.blocks, shape)
        named = self.model.named_parameters()
        own = {name: value for name, value in named if value.requires_grad and id(value) not in shared}
        self.learnt: dict[str, nn.Parameter] = {_plain(name): value for name, value in own.items()}

    def fill(self, tensors: Mapping[str, Tensor]) -> None:
        """Put learnt values in.

        Raises:
            InputError: other names or shapes than these parts of this network have.
        """
        wanted = {name: tuple(value.shape) for name, value in self.learnt.items()}
        given = {name: tuple(value.shape) for name, value in tensors.items()}
        if wanted != given:
            odd = sorted(name for name in wanted.keys() | given if wanted.get(name) != given.get(name))
            raise InputError(
                f"the adapter does not fit the network: {odd[0]!r:.120} is {given.get(odd[0], 'missing')} and "
                f"{wanted.get(odd[0], 'not wanted')} is needed ({len(odd)} such tensors); use the library versions it "
                "was tuned with, or tune again"
            )
        with torch.no_grad():
            for name, value in self.learnt.items():
                value.copy_(tensors[name])

    def values(self) -> dict[str, Tensor]:
        """The present values: float32, on the CPU."""
        return {name: value.detach().float().cpu().clone() for name, value in self.learnt.items()}

    def settle(self) -> Any:
        """The copy as an ordinary frozen model: LoRA merged into the weights, so that it costs nothing."""
        for module, name in self._fused:
            parametrize.remove_parametrizations(module, name, leave_parametrized=True)
        if self._tuner is not None:
            self._tuner.merge_and_unload(progressbar=False)
        self.model.requires_grad_(False)
        self.model.eval()
        return self.model

    def _low_rank(self, parts: Parts, names: tuple[str, ...]) -> None:
        modules = dict(self.model.named_modules())
        fused = [name for name in names if isinstance(modules[name], nn.MultiheadAttention)]
        for name in fused:
            # peft merges and unmerges fused attention on every pass, which moves frozen weights by rounding.
            attention = modules[name]
            for owner, weight in ((attention, "in_proj_weight"), (attention.out_proj, "weight")):
                _own(owner, weight)
                parametrize.register_parametrization(owner, weight, _LowRank(getattr(owner, weight), parts))
                self._fused.append((owner, weight))
        plain = [name for name in names if name not in fused]
        if not plain:
            return
        peft = require("peft", "adapt")
        for name in plain:
            _own(modules[name], "weight")
        config = peft.LoraConfig(r=parts.rank, lora_alpha=parts.scale, target_modules=plain, bias="none")
        grads = {id(value): value for value in self.model.parameters() if value.requires_grad}
        self._tuner = peft.LoraModel(self.model, config, "default")
        for value in grads.values():
            value.requires_grad_(True)

    def _affine(self, names: tuple[str, ...]) -> None:
        modules = dict(self.model.named_modules())
        if not names:
            raise InputError("the network has no normalisation layers with a learnt scale; use lora")
        for name in names:
            for weight in ("weight", "bias"):
                if getattr(modules[name], weight, None) is not None:
                    _own(modules[name], weight, learnt=True)

    def _prompted(self, parts: Parts, blocks: Blocks | None, shape: tuple[int, ...]) -> None:
        if blocks is None:
            raise InputError("visual prompt tokens are for ViTs, and the network has no row of blocks over tokens")
        modules = dict(self.model.named_modules())
        like = next(self.model.parameters())
        for place, name in enumerate(blocks.names):
            block = modules[name]
            if place == 0 or parts.deep:
                values = torch.randn(parts.tokens, blocks.width) * _SPREAD
                block.register_parameter(_TOKENS, nn.Parameter(values.to(like.device)))
                taking = partial(_with_tokens, blocks.axis, parts.tokens if place else 0)
                block.register_forward_pre_hook(taking, with_kwargs=True)
        modules[blocks.names[-1]].register_forward_hook(partial(_without_tokens, blocks.axis, parts.tokens))
        try:
            with torch.no_grad():
                body(self.model)(torch.full((2, *shape), 0.5, device=like.device))
        # Windows, two-dimensional positions and the like: each network fails in its own way.
        except Exception as error:
            raise InputError(
                f"visual prompt tokens do not fit this network ({type(error).__name__}): its blocks take no more "
                "tokens than an image has; use lora or layernorm"
            ) from error


class _LowRank(nn.Module):
    """``W -> W + scale / rank * B A`` for a fused weight."""

    def __init__(self, weight: Tensor, parts: Parts) -> None:
        super().__init__()
        rows, columns = weight.shape
        self.factor = parts.scale / parts.rank
        self.lora_A = nn.Parameter(torch.empty(parts.rank, columns, device=weight.device))
        self.lora_B = nn.Parameter(torch.zeros(rows, parts.rank, device=weight.device))
        nn.init.kaiming_uniform_(self.lora_A, a=5**0.5)

    def forward(self, weight: Tensor) -> Tensor:
        return weight + (self.factor * self.lora_B @ self.lora_A).to(weight.dtype)


def _own(module: nn.Module, name: str, *, learnt: bool = False) -> None:
    """Give a module a tensor of its own in place of the shared one."""
    setattr(module, name, nn.Parameter(getattr(module, name).detach().clone(), requires_grad=learnt))


def _plain(name: str) -> str:
    return name.replace(".default", "").replace("parametrizations.", "")


def _with_tokens(
    axis: int, replaced: int, block: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Put a block's tokens behind the image's own; deep ones replace those of the block before."""
    x = args[0]
    own = x.narrow(axis, 0, x.shape[axis] - replaced)
    tokens = getattr(block, _TOKENS).to(x.dtype).unsqueeze(1 - axis)
    batch = [-1, -1, -1]
    batch[1 - axis] = x.shape[1 - axis]
    return (torch.cat([own, tokens.expand(batch)], dim=axis), *args[1:]), kwargs


def _without_tokens(axis: int, count: int, block: nn.Module, args: tuple[Any, ...], output: Any) -> Any:
    """Take them out again: what follows the blocks sees as many tokens as ever."""
    found = output[0] if isinstance(output, tuple) else output
    found = found.narrow(axis, 0, found.shape[axis] - count)
    return (found, *output[1:]) if isinstance(output, tuple) else found
