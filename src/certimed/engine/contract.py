"""What a base classifier must be, checked: a fixed function of one input, which leaves that input alone.

Every certificate of randomized smoothing is about ``f(x + noise)`` for *one fixed function* f (Cohen et al., ICML 2019,
Theorem 1). A network need not be one: layers that normalise by the batch, quantisation whose scales come from the
batch, dropout left on or a counter make its answer depend on what else ran, and counts of such answers prove nothing.
What can be seen in a network is refused where it is wrapped (:func:`refuse_what_is_no_function`); the rest is looked
for in its answers (:func:`check_one_answer`), once a model and run.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from certimed.errors import ModelError


class Copies(Protocol):
    """Noisy copies by their number: a batch of them, or what draws each when it is asked for."""

    def __len__(self) -> int:
        """How many."""

    def __getitem__(self, index: int, /) -> Tensor:
        """One, ``(C, *space)``."""


FAR = 50
"""How many times the noise of its companions a noisy copy must not feel."""

COPIES = 8
"""Noisy copies that are looked at, at most."""

# By how much of the spread of the scores kernels of other batch sizes may move a score. Measured on a CPU with the demo
# CLIP and U-Net and a ViT-B/32: at most 5e-7 in float32. In low precision kernels that sum in another order may differ
# by what a layer is rounded by, some steps of 2^-8 (bfloat16) or 2^-11 (float16) of the largest activations; float32
# off the CPU may be TF32, which has float16's bits.
_ROUNDING = {torch.bfloat16: 0.05, torch.float16: 0.01, torch.float32: 1e-3}
_FACTOR = 4  # of the resolution that scores of this size have; of a tie that no rounding moves a score by
_MOST_ANSWERS = 1 << 18  # pixels of a copy that are compared
_MOST_TIES = 0.25  # of all answers compared: where more of them change, nothing can be told from ties


@dataclass(frozen=True)
class OneAnswer:
    """What was seen when a model answered the same noisy copies in several batches.

    Attributes:
        copies: noisy copies looked at.
        passes: inputs that went through the model for it.
        largest_batch: how many of them at once, at most.
        compositions: the batches they were in: ``"whole"``, ``"alone-or-pairs"``, ``"beside-far"`` (copies with 50
            times the noise) and ``"reversed"`` (the whole batch once more, last copy first).
        answers: classes compared with those of the whole batch, a pixel of a mask each.
        near_ties: of these, those that changed, their two best scores being tied within rounding.
        score_difference: the largest change of a score.
        tolerance: how far two scores may lie apart and be called tied.
    """

    copies: int
    passes: int
    largest_batch: int
    compositions: tuple[str, ...]
    answers: int
    near_ties: int
    score_difference: float
    tolerance: float

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types, for provenance."""
        return {**asdict(self), "compositions": list(self.compositions)}


WHOLE, ALONE, BESIDE_FAR, REVERSED = "whole", "alone-or-pairs", "beside-far", "reversed"
_WORDS = {
    BESIDE_FAR: f"beside copies with {FAR} times the noise",
    REVERSED: "in the same batch once more, in reverse order",
}
_CURE = "a certificate needs a fixed function of each input alone, so normalise and quantise by stored statistics only"


def check_evaluation_mode(model: object) -> None:
    """Refuse a module in training mode.

    Dropout would make the model random and batch statistics would tie the samples of a batch together.

    Raises:
        ModelError: the module or a part of it is in training mode.
    """
    for path, part in _parts(model):
        if part.training:
            where = f" (in {path})" if path else ""
            raise ModelError(f"{type(model).__name__}{where} is in training mode; call model.eval() before certifying")


def refuse_what_is_no_function(model: object) -> None:
    """Refuse what a network's layers show to be no fixed function of one input.

    Refused: training mode; batch normalisation without running statistics, which normalises by the batch in evaluation
    mode too (instance, group and layer normalisation look at one input and are fine, with running statistics or
    without); dynamic quantisation, whose scales come from the batch; fake quantisation that still observes.
    Functional calls cannot be seen here: :func:`check_one_answer` looks at the answers.

    Args:
        model: a module, whose parts are walked, or any callable: modules are looked for behind bound methods, partial
            applications and closures.

    Raises:
        ModelError: names the layer and what to do.
    """
    check_evaluation_mode(model)
    for path, part in _parts(model):
        where = f"layer {path or 'model'} ({_kind(part)})"
        if _normalises_by_the_batch(part):
            raise ModelError(
                f"{where} has no running statistics and normalises by the batch it is in; train it with "
                "track_running_stats=True, or use group or instance normalisation"
            )
        if any("quantized.dynamic" in base.__module__ for base in type(part).__mro__):
            raise ModelError(
                f"{where} is quantised dynamically, with a scale that depends on the batch it is in; use static "
                "quantisation, calibrated beforehand, or float weights"
            )
        observing = getattr(part, "observer_enabled", None)
        if isinstance(observing, Tensor) and bool(observing.any()):
            raise ModelError(f"{where} still observes and changes its scale with every batch; call disable_observer")


def _parts(model: object) -> Iterator[tuple[str, nn.Module]]:
    """Named modules of a module, or of those that a callable holds."""
    if isinstance(model, nn.Module):
        yield from model.named_modules()
    elif isinstance(model, functools.partial):
        for inner in (model.func, *model.args, *model.keywords.values()):
            yield from _parts(inner)
    elif callable(model):
        held = [getattr(model, "__self__", None)]
        for cell in getattr(model, "__closure__", None) or ():
            with suppress(ValueError):  # a cell that is not filled yet
                held.append(cell.cell_contents)
        for inner in held:
            yield from _parts(inner) if isinstance(inner, nn.Module) else ()


def _kind(part: nn.Module) -> str:
    return str(getattr(part, "original_name", type(part).__name__))  # a scripted module's class is its wrapper's


def _normalises_by_the_batch(part: nn.Module) -> bool:
    # What counts in evaluation mode is whether there are statistics, not whether the layer goes on tracking them.
    if not (isinstance(part, _BatchNorm) or "BatchNorm" in _kind(part)) or not hasattr(part, "running_mean"):
        return False
    return part.running_mean is None or getattr(part, "running_var", None) is None


def check_one_answer(
    scores: Callable[[Tensor], Tensor],
    noisy: Copies,
    far: Copies,
    *,
    dtype: torch.dtype = torch.float32,
    largest: int | None = None,
    names: Sequence[str] = (),
) -> OneAnswer:
    """Put the same noisy copies through a model in several batches; its answers must not depend on them.

    Each copy is answered in the whole batch, alone or in a pair, beside copies with :data:`FAR` times the noise, and in
    the whole batch once more in reverse order: five to six forward passes a copy, far ones included. Kernels are chosen
    by batch size and round differently, so a class may change where the two best scores are tied within rounding:
    nearer to each other than a share of the spread of all scores (.001 in float32, .01 in float16 and in float32 off
    the CPU, .05 in bfloat16) plus four times the resolution of the largest score in that precision. At most a quarter
    of the answers may change so. A score that moves by more than four times as much is refused whatever its class:
    rounding does not do that, and at another image the class would follow. Scores of two values only (votes) show no
    ties; the share above is then the share of answers that may change.

    Not proved: that the model is a function. A model that misbehaves on other inputs, or rarely, passes.

    Args:
        scores: the model: ``(B, C, *space)`` -> ``(B, K)`` or ``(B, K, *space)``, the highest score winning and ties
            going to the lowest class. Runs under the grad
            mode of the caller, as the engine does.
        noisy: two or more noisy copies ``(C, *space)`` as the engine draws them, by their number: a batch of them, or
            what draws each when it is asked for.
        far: as many, with FAR times the noise.
        dtype: coarsest floating point precision that the forward pass uses.
        largest: inputs of a forward pass at most, as in the run; larger batches are cut. At 1 only what the model
            remembers, or draws, is looked for, as nothing keeps an input company in such a run.
        names: what the entries of the scores' last axis are called in an error; default: their index.

    Raises:
        ModelError: says which answer changed and how; scores that are not finite.
    """
    copies, half = len(noisy), len(noisy) // 2
    passes = 0

    def answered(*rows: int, beside: Copies | None = None) -> Tensor:
        nonlocal passes
        asked = [(one, row) for row in rows for one in ((noisy,) if beside is None else (noisy, beside))]
        passes += len(asked)
        found = []
        for begin in range(0, len(asked), largest or len(asked)):
            # Stacked, so a copy: what a model does to its input then is its own business.
            x = torch.stack([one[row] for one, row in asked[begin : begin + (largest or len(asked))]])
            found.append(_thinned(scores(x).detach()))
        seen = torch.cat(found)[:: 1 if beside is None else 2].float()
        if not bool(torch.isfinite(seen).all()):
            raise ModelError("the model returned scores that are not finite on noisy copies; no class can be counted")
        return seen

    whole = answered(*range(copies))
    again = {
        ALONE: torch.cat([answered(i) if i < half else answered(i, i - half)[:1] for i in range(copies)]),
        BESIDE_FAR: answered(*range(copies), beside=far),
        REVERSED: answered(*reversed(range(copies))).flip(0),
    }
    share = _rounding(whole, dtype)
    low, high = (float(extreme) for extreme in torch.aminmax(whole))
    spread, eps = high - low, torch.finfo(dtype).eps
    tie = share * spread + _FACTOR * eps * max(abs(low), abs(high))
    votes = spread > 0 and bool(((whole == low) | (whole == high)).all())
    classes, ties = whole.argmax(dim=1), 0
    for how, found in again.items():
        changed = found.argmax(dim=1) != classes
        real = changed if votes else changed & (torch.minimum(_gap(found), _gap(whole)) > tie)
        if int(real.sum()) > (share * real.numel() if votes else 0):
            copy, *place = (int(index) for index in real.nonzero()[0])
            here, there = (int(one.argmax(dim=1)[copy][tuple(place)]) for one in (found, whole))
            where = f" at {names[place[-1]] if names else tuple(place)}" if place else ""
            raise ModelError(
                f"the class of noisy copy {copy + 1}{where} was {here} {_words(how, copy < half)} and {there} in a "
                f"batch of {copies}; {_CURE}"
            )
        ties += int(changed.sum())
    moves = {how: (found - whole).abs().flatten(1).amax(dim=1) for how, found in again.items()}
    how = max(moves, key=lambda one: float(moves[one].max()))
    difference, copy = float(moves[how].max()), int(moves[how].argmax())
    if not votes and difference > _FACTOR * tie:
        raise ModelError(
            f"a score of noisy copy {copy + 1} differed by {difference:.3g} {_words(how, copy < half)} from that in a "
            f"batch of {copies}, where rounding explains {_FACTOR * tie:.3g}; {_CURE}"
        )
    answers = len(again) * classes.numel()
    if not votes and ties > _MOST_TIES * answers:
        raise ModelError(
            f"{ties} of {answers} answers changed with the batch they were in, all of them within {tie:.3g} of a tie; "
            f"scores that spread over {spread:.3g} are too coarse to certify, so compute them in a higher precision"
        )
    return OneAnswer(
        copies, passes, min(2 * copies, largest or 2 * copies), (WHOLE, *again), answers, ties, difference, tie
    )


def _thinned(scores: Tensor) -> Tensor:
    """Scores of every n-th pixel in each direction where there are more than 2^18: the rest would only cost memory."""
    space = scores.shape[2:]
    step = 1
    while math.prod(-(-side // step) for side in space) > _MOST_ANSWERS:
        step += 1
    every = (slice(None),) * 2 + (slice(None, None, step),) * len(space)
    return scores[every].clone() if step > 1 else scores


@contextmanager
def unchanged(image: Tensor) -> Iterator[None]:
    """Refuse a model that changes the image, once the block is done.

    Engines hand out copies only; this is what is left where one did not, or where a model found the image otherwise.

    Raises:
        ModelError: the values are no longer what they were.
    """
    before = image.clone()
    yield
    if not torch.equal(before, image):
        raise ModelError(
            "the model changed the image it was given, so that noise was added to something else; work on a copy, e.g. "
            "x = x - mean instead of x.sub_(mean), and no ReLU(inplace=True) as the first layer"
        )


def _words(how: str, alone: bool) -> str:
    return ("alone" if alone else "in a pair") if how == ALONE else _WORDS[how]


def _rounding(x: Tensor, dtype: torch.dtype) -> float:
    return _ROUNDING.get(torch.float16 if dtype == torch.float32 and x.device.type != "cpu" else dtype, 1e-3)


def _gap(scores: Tensor) -> Tensor:
    """Distance of the two best scores: ``(B, K, *space)`` -> ``(B, *space)``."""
    best, second = scores.topk(2, dim=1).values.unbind(dim=1)
    return best - second
