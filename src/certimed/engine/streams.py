"""Streams: what noisy copies go through once, for all the methods that share it."""

from __future__ import annotations

from itertools import count
from typing import Any, Protocol
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from certimed.engine.acceleration import FLOAT32, Acceleration, arithmetic, coarsest_dtype
from certimed.engine.contract import refuse_what_is_no_function
from certimed.engine.copies import Model
from certimed.engines import Exported
from certimed.models.identity import combined, identity_of, is_complete

PLAIN = "plain"
DENOISED = "denoised"


class Stream(Protocol):
    """What noisy copies go through once.

    Attributes:
        identity: of what it computes, or None where the caller gave none.
        arithmetic: in which precision it runs, for the record.
        dtype: the coarsest floating point type of it.
        libraries: distributions that built it.
        cache_key: equal only for streams that compute the same.
    """

    identity: str | None
    arithmetic: str
    dtype: torch.dtype
    libraries: tuple[str, ...]
    cache_key: str

    def __call__(self, x: Tensor) -> Tensor:
        """float32 ``(B, C, *space)`` in the certified space -> embedded copies ``(B, ...)``."""


class ModelStream(nn.Module):
    """A model, optionally behind a denoiser, as a stream.

    With a denoiser this is denoised smoothing (Salman et al., NeurIPS 2020): noise first, denoiser next, model last, so
    the certified space and the noise are the same with and without it.

    Args:
        model: a callable ``(B, C, *space)`` -> scores, or a vision-language model or classifier with ``encode_image``.
        denoiser: module ``x -> x`` in [0, 1] units, made for one noise level, in eval mode.
        identity: of the model; default: its own, where it states one.
        acceleration: how both run; what becomes of the result stays float32.
        libraries: distributions that built the model; default: those it states.

    Raises:
        ModelError: a part that is no function of one input, see :mod:`certimed.engine.contract`.
        InputError: the device does not compute in this precision.
    """

    def __init__(
        self,
        model: Model | Any,
        denoiser: nn.Module | None = None,
        *,
        identity: str | None = None,
        acceleration: Acceleration = FLOAT32,
        libraries: tuple[str, ...] = (),
    ) -> None:
        super().__init__()
        self.training = False  # not eval(), which would reach into the model
        for part in (model, denoiser):
            refuse_what_is_no_function(part)
        own = identity or getattr(model, "identity", None)
        whole = own if denoiser is None or own is None else combined("denoised", identity_of(denoiser), own)
        self.identity = acceleration.identity(whole)
        run = model if denoiser is None and not hasattr(model, "encode_image") else _Body(model, denoiser)
        self._run = acceleration.wrap(run)
        engine = self._run.libraries if isinstance(self._run, Exported) else ()
        self.libraries = tuple(dict.fromkeys([*libraries, *_libraries(model), *_libraries(denoiser), *engine]))
        self.arithmetic, self.dtype = arithmetic(self._run), coarsest_dtype(self._run)
        parts = [part for part in (denoiser, model) if part is not None]
        # An identity may not see all that a model does: only a complete one stands for the object.
        self.cache_key = combined([identity_of(p) if is_complete(p) else _number(p) for p in parts], self.arithmetic)

    def forward(self, x: Tensor) -> Tensor:
        """See :class:`Stream`; float32."""
        found: Tensor = self._run(x)
        return found.float() if isinstance(found, Tensor) else found


class _Body(nn.Module):
    """What is accelerated: denoiser and model as one module."""

    def __init__(self, model: Any, denoiser: nn.Module | None) -> None:
        super().__init__()
        self.training = False  # as its parts
        self.model, self.denoiser = model, denoiser

    def forward(self, x: Tensor) -> Tensor:
        x = x if self.denoiser is None else self.denoiser(x)
        found: Tensor = self.model.encode_image(x) if hasattr(self.model, "encode_image") else self.model(x)
        return found


_numbers: WeakKeyDictionary[Any, int] = WeakKeyDictionary()
_counter = count()


def _number(part: Any) -> int:
    """A number no other object of this process has or will have, whatever two objects share: weights, identity, id."""
    return _numbers.setdefault(part, next(_counter))


def _libraries(part: Any) -> tuple[str, ...]:
    return tuple(getattr(part, "libraries", ()))
