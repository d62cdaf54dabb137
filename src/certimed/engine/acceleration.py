"""Speed of one sample: precision, engine, memory layout. What is certified is the model that ran.

A model in lower precision is another base classifier, and as legal a one: randomized smoothing holds for any fixed
function of the noisy image. So its certificates are its own, not the float32 model's, and each says which arithmetic
ran (:func:`arithmetic`, recorded as the provenance's ``dtype``). Noise is drawn, scaled and added in float32, before
any cast; scores come back as float32, so ties, which are common in low precision, go to the lowest class as always.

What is reproducible: with one machine, one thread count, one batch size and one version of PyTorch, the same bits. Not
promised, in float32 neither: that a sample's scores are the same bits in a batch of another size, as kernels are chosen
by size and round differently. Low precision and compiled kernels make such differences larger, never dependent on
*which* images share the batch. A sample's class then differs only where two scores nearly tie.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.func import functional_call

from certimed.engine.contract import refuse_what_is_no_function
from certimed.engine.copies import Model
from certimed.engines import EXPORTING, Exported, start
from certimed.errors import InputError
from certimed.models.identity import combined
from certimed.models.onnx_network import OnnxNetwork

PRECISIONS = ("float32", "bfloat16", "float16")
ENGINES = ("torch", "compile", *EXPORTING)

# Layers that autocast runs in low precision with their weights cast on every call. Subclasses are left alone: they may
# use their weights in other ways (standardised, say), which deserve float32.
_CAST_ONCE = (
    nn.Linear,
    nn.Conv1d,
    nn.Conv2d,
    nn.Conv3d,
    nn.ConvTranspose1d,
    nn.ConvTranspose2d,
    nn.ConvTranspose3d,
    nn.MultiheadAttention,
    nn.modules.linear.NonDynamicallyQuantizableLinear,
)
_CAST_NAMES = ("weight", "bias", "in_proj_weight", "in_proj_bias")


@dataclass(frozen=True)
class Acceleration:
    """How the forward pass of a model is computed.

    Attributes:
        precision: ``"float32"``; ``"bfloat16"`` or ``"float16"``: in PyTorch under autocast, matrix products and
            convolutions in low precision, normalisations, softmax and sums in float32; in another engine as that
            chooses. float16 is for GPUs.
        engine: ``"torch"``; ``"compile"``, which is ``torch.compile`` and needs a C++ compiler and a minute at the
            start; or one of :data:`certimed.engines.EXPORTING`, which run on the CPU.
        channels_last: memory layout that suits convolutions on many processors; of PyTorch.

    Raises:
        InputError: an unknown precision or engine, or settings that do not go together.
    """

    precision: str = "float32"
    engine: str = "torch"
    channels_last: bool = False

    def __post_init__(self) -> None:
        if self.precision not in PRECISIONS:
            raise InputError(f"precision={self.precision!r} is unknown; use {', '.join(PRECISIONS)}")
        if self.engine not in ENGINES:
            raise InputError(f"engine={self.engine!r} is unknown; use {', '.join(ENGINES)}")
        if self.exports and self.channels_last:
            raise InputError(f"channels_last is PyTorch's, and engine {self.engine} chooses its own layout")

    def __str__(self) -> str:
        """What provenance records, e.g. ``"bfloat16 autocast, compiled"``."""
        return self._of("float32")

    def _of(self, weights: str) -> str:
        if self.exports:
            return f"{self.precision} in {self.engine}"
        words = [weights if self.dtype is None else f"{self.precision} autocast"]
        return ", ".join(words + ["compiled"] * (self.engine == "compile") + ["channels last"] * self.channels_last)

    @property
    def exports(self) -> bool:
        """Whether another engine than PyTorch runs the model."""
        return self.engine in EXPORTING

    def identity(self, own: str | None) -> str | None:
        """Identity of a model run this way: PyTorch's arithmetic is the model's own, another engine is another one."""
        return combined("run by", self.engine, self.precision, own) if self.exports and own is not None else own

    @property
    def dtype(self) -> torch.dtype | None:
        """The low precision, or None for float32."""
        return None if self.precision == "float32" else getattr(torch, self.precision)

    def check_device(self, device: torch.device | str) -> Acceleration:
        """Return itself, or raise InputError where the device does not compute in this precision."""
        if self.exports and torch.device(device).type != "cpu":
            raise InputError(f"engine {self.engine} runs on the CPU; use --device cpu, or --engine torch or compile")
        if self.precision == "float16" and torch.device(device).type == "cpu":
            raise InputError("float16 is for GPUs and this model runs on the CPU; use precision bfloat16 or float32")
        return self

    def wrap(self, model: Model) -> Model:
        """The model computed this way: float32 in, float32 out, same shapes; the model itself where nothing changes.

        The weights are read now: changed later, they would not be those that run.

        Args:
            model: any callable; of an ``nn.Module`` the weights of linear and convolution layers are cast once, which
                gives the same bits as casting them on every call.

        Raises:
            InputError: the model's device does not compute in this precision.
            ModelError: a module that is no fixed function, e.g. in training mode.
        """
        if self == FLOAT32:
            return model
        refuse_what_is_no_function(model)
        if isinstance(model, nn.Module):
            for parameter in model.parameters():
                self.check_device(parameter.device)
                break
        if not self.exports:
            return Accelerated(model, self)
        if not isinstance(model, nn.Module):
            raise InputError(
                f"engine {self.engine} runs modules of PyTorch, and this model is none: a {type(model).__name__}"
            )
        return start(self.engine, model, self.precision)


FLOAT32 = Acceleration()
"""The model as it is."""


class Accelerated(nn.Module):
    """A model under an :class:`Acceleration`; made by :meth:`Acceleration.wrap`.

    Attributes:
        model: the model as it was.
        acceleration: how it runs.
    """

    def __init__(self, model: Model, acceleration: Acceleration) -> None:
        super().__init__()
        self.training = False  # not eval(), which would reach into the model
        self.model = model
        self.acceleration = acceleration
        self._run = _with_weights(model, acceleration) if isinstance(model, nn.Module) else model
        if acceleration.engine == "compile":
            if isinstance(model, nn.Module):
                for part in model.modules():
                    if isinstance(part, OnnxNetwork):  # an ONNX file is another library's, and nothing to compile
                        part.forward = torch.compiler.disable(part.forward)  # type: ignore[method-assign, no-untyped-call]
            self._run = torch.compile(self._run)

    def forward(self, x: Tensor) -> Tensor:
        """float32 ``(B, C, *space)`` -> float32 scores, as the model's.

        Raises:
            InputError: float16 on a CPU; a model that cannot be compiled here.
        """
        dtype = self.acceleration.check_device(x.device).dtype
        if self.acceleration.channels_last:
            x = _channels_last(x)
        with torch.autocast(x.device.type, dtype or torch.bfloat16, enabled=dtype is not None):
            scores = self._compiled(x) if self.acceleration.engine == "compile" else self._run(x)
        # A model that returns no tensor is refused where scores are checked.
        return scores.float().contiguous() if isinstance(scores, Tensor) else scores

    def _compiled(self, x: Tensor) -> Tensor:
        # One graph for batches of any size: the last batch is often smaller. Graphs know no size 1 but as a constant.
        single = len(x) == 1
        x = x.expand(2, *x.shape[1:]).contiguous() if single else x
        torch._dynamo.maybe_mark_dynamic(x, 0)
        try:
            scores = self._run(x)
        except torch._dynamo.exc.TorchDynamoException as error:
            reason = str(error).strip().partition("\n")[0][:160]
            raise InputError(f"the model cannot be compiled here ({reason}); leave --engine compile out") from error
        return scores[:1] if single and isinstance(scores, Tensor) else scores

    def extra_repr(self) -> str:
        """Shown by ``repr``."""
        return str(self.acceleration)


def arithmetic(model: Model, acceleration: Acceleration | None = None) -> str:
    """Arithmetic of a model's forward pass, for provenance: ``"float32"``, ``"bfloat16 autocast, compiled"``, ...

    Parts of a module that switch precision themselves (a denoiser under autocast) are named behind it; they say so in
    an attribute ``arithmetic``.

    Args:
        model: wrapped or not.
        acceleration: describe the model as if wrapped in it.
    """
    if isinstance(model, Exported):
        return model.arithmetic
    how = model.acceleration if isinstance(model, Accelerated) else acceleration or FLOAT32
    if not isinstance(model, nn.Module):
        return str(how)
    kinds = {parameter.dtype for parameter in model.parameters() if parameter.is_floating_point()}
    low = sorted(str(kind).removeprefix("torch.") for kind in kinds - {torch.float32})
    words = [how._of(f"{' and '.join(low)} weights" if low else "float32")]
    inner = {(type(part).__name__, part.arithmetic) for part in model.modules() if hasattr(part, "arithmetic")}
    return ", ".join([*words, *(f"{name} in {how}" for name, how in sorted(inner) if how)])


def coarsest_dtype(model: Model) -> torch.dtype:
    """The coarsest floating point type that a model's forward pass uses, as far as its parts say; else float32."""
    kinds = {torch.float32}
    if isinstance(model, nn.Module):
        kinds |= {parameter.dtype for parameter in model.parameters() if parameter.is_floating_point()}
        for part in model.modules():
            own = part.acceleration.dtype if isinstance(part, Accelerated) else None
            own = part.dtype if isinstance(part, Exported) else own
            kinds |= {kind for kind in (own, getattr(getattr(part, "options", None), "autocast", None)) if kind}
    return max(kinds, key=lambda kind: torch.finfo(kind).eps)


def _with_weights(model: nn.Module, acceleration: Acceleration) -> Callable[[Tensor], Tensor]:
    """The module with weights of its own, cast and laid out; nothing is copied that stays as it is."""
    weights: dict[str, Tensor] = {}
    for prefix, part in model.named_modules():
        if type(part) not in _CAST_ONCE:
            continue
        for name, value in part.named_parameters(prefix, recurse=False):
            if name.rpartition(".")[2] not in _CAST_NAMES or not value.is_floating_point():
                continue
            changed = value.detach().to(acceleration.dtype or value.dtype)
            changed = _channels_last(changed) if acceleration.channels_last else changed
            if changed.dtype != value.dtype or changed.stride() != value.stride():
                weights[name] = changed

    def run(x: Tensor) -> Tensor:
        scores: Tensor = functional_call(model, weights, (x,), tie_weights=False) if weights else model(x)
        return scores

    return run


def _channels_last(x: Tensor) -> Tensor:
    formats = {4: torch.channels_last, 5: torch.channels_last_3d}
    return x.contiguous(memory_format=formats[x.ndim]) if x.ndim in formats else x
