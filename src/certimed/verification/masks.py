"""Is every pixel a mask certificate calls certified one that its agreement counts prove?"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from fractions import Fraction
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from certimed.integrity import BROKEN_ARCHIVE
from certimed.verification.budgets import Allowance, read_budget
from certimed.verification.exact import context, number, quantile, upper_tail
from certimed.verification.laws import Law
from certimed.verification.looks import schedule_faults
from certimed.verification.shapes import answered_space, pixels_of
from certimed.verification.stops import mask_stop_faults

_LAYERS = ("agreement", "certified", "mask")
_TIE = Fraction(1, 10**11)  # p-values this close to their level may be decided either way, towards fewer pixels
_RADIUS_SLACK = Fraction(1, 10**9)

Layers = Mapping[str, NDArray[Any]]


def arrays_name(item: str, method: str, tau: float) -> str:
    """Name of the arrays of a certificate within its run."""
    return f"arrays/{hashlib.sha256(json.dumps([item, method, tau]).encode()).hexdigest()[:24]}.npz"


def read_layers(path: Path) -> Layers | str:
    """The three arrays of a mask certificate, or why they cannot be read."""
    try:
        with np.load(path, allow_pickle=False) as stored:
            if sorted(stored.files) != sorted(_LAYERS):
                raise ValueError(f"it holds {sorted(stored.files)}, not {list(_LAYERS)}")
            return {name: stored[name] for name in _LAYERS}
    except (KeyError, *BROKEN_ARCHIVE) as error:
        return f"its arrays {path.name} cannot be read ({error})"


def mask_claim_faults(data: dict[str, Any], law: Law, layers: Layers | str) -> Iterator[str]:
    """Every false statement of a mask certificate's claim and samples, most basic first; none if it holds.

    Checked: the digest of the arrays, that they belong to the numbers, the family-wise test from the histogram of
    agreement counts with exact p-values (Holm, Bonferroni) at tau moved by the law's drift, the certified pixels, their
    share, the radius ``sigma * Phi^-1(tau)``, the looks, the stop. Of looks before the last one the counts are gone,
    and nothing is claimed from them; their thresholds are only checked to be possible.

    Args:
        layers: as :func:`read_layers` gives it.
    """
    claim, samples = data["claim"], data["samples"]
    allowed = read_budget(samples["budget"])
    if allowed is None:
        yield f"budget {samples['budget']!r:.80} is none this version knows"
        return
    if claim["sigma"] != law.sigma:
        yield f"sigma={claim['sigma']!r} of the claim is not that of its noise, {law.sigma!r}"
    faults = list(schedule_faults(data, allowed))
    if not faults:
        faults = [layers] if isinstance(layers, str) else _array_faults(data, layers)
    if faults or isinstance(layers, str):
        yield from faults
        return
    yield from _look_faults(data, allowed, law)
    yield from _proof_faults(data, layers, allowed, law)


def _array_faults(data: dict[str, Any], layers: Layers) -> list[str]:
    space, claim = answered_space(data), data["claim"]
    for layer, values in layers.items():
        if values.shape != space:
            return [f"the array {layer!r} has shape {values.shape}, not {space}"]
        if values.dtype.kind != ("b" if layer == "certified" else "u"):
            return [f"the array {layer!r} has dtype {values.dtype}"]
    if _digest(layers) != claim["arrays_sha256"]:
        return ["arrays_sha256 is not the digest of its arrays"]
    if int(layers["mask"].max()) >= claim["num_classes"]:
        return [f"mask holds class {int(layers['mask'].max())} of {claim['num_classes']} classes"]
    if int(layers["agreement"].max()) > data["samples"]["n"]:
        return [f"agreement holds {int(layers['agreement'].max())} of n={data['samples']['n']} samples"]
    return []


def _digest(layers: Layers) -> str:
    found = hashlib.sha256()
    for name in ("agreement", "mask"):
        found.update(json.dumps([name, list(layers[name].shape)]).encode())
        found.update(np.ascontiguousarray(layers[name], dtype="<u4").tobytes())
    return found.hexdigest()


def _look_faults(data: dict[str, Any], allowed: Allowance, law: Law) -> Iterator[str]:
    claim, samples, looks = data["claim"], data["samples"], data["samples"]["looks"]
    level, pixels = Fraction(data["alpha"]["level"]), pixels_of(data)
    if samples["proved_at"] != len(looks) - 1:
        yield f"proved_at={samples['proved_at']}, but a mask is claimed from the last of {len(looks)} looks"
    if looks[-1] != [samples["n"], claim["threshold"] or 0]:
        yield f"the last look {looks[-1]} is not that of n={samples['n']} and threshold={claim['threshold']}"
    tau = Fraction(claim["tau"]) + law.drift(data["shape"], data["views"])
    for look, (n, threshold) in enumerate(looks[:-1]):
        share = allowed.share(look, level)
        # No step of Holm's test asks for less than the whole share.
        if threshold and (threshold > n or upper_tail(threshold, n, tau) > number(share)):
            yield f"look {look} cannot certify {threshold} of {n} agreeing samples"
        elif claim["correction"] == "bonferroni" and (threshold or None) not in {
            _smallest_count(n, tau + law.drift(data["shape"], data["views"]) * more, share * (1 - lean * _TIE) / pixels)
            for more, lean in ((0, -1), (1, 1))
        }:
            yield f"look {look} has threshold {threshold}, which Bonferroni's test of {pixels} pixels does not give"


def _proof_faults(data: dict[str, Any], layers: Layers, allowed: Allowance, law: Law) -> Iterator[str]:
    claim, samples, pixels = data["claim"], data["samples"], pixels_of(data)
    counts, sizes = np.unique(layers["agreement"], return_counts=True)
    histogram = list(zip(counts.tolist(), sizes.tolist()))
    level = allowed.share(len(samples["looks"]) - 1, Fraction(data["alpha"]["level"]))
    tau, drift = Fraction(claim["tau"]), law.drift(data["shape"], data["views"])
    # What is claimed must hold at the drift that is demanded; it may also be what twice the drift leaves.
    loose = _threshold(claim["correction"], samples["n"], tau + drift, level * (1 + _TIE), histogram, pixels)
    strict = _threshold(claim["correction"], samples["n"], tau + 2 * drift, level * (1 - _TIE), histogram, pixels)
    low, high, given = (one or samples["n"] + 1 for one in (loose, strict, claim["threshold"]))
    if given not in (low, high) and not (low < given < high and given in counts):
        yield f"threshold={claim['threshold']} is not the one {claim['correction']} gives ({strict})"
    shown, agreement, threshold = layers["certified"], layers["agreement"], claim["threshold"]
    claimed = np.zeros(shown.shape, dtype=bool) if threshold is None else agreement >= threshold
    if not np.array_equal(shown, claimed):
        yield f"{int(np.count_nonzero(shown != claimed))} pixels of 'certified' contradict agreement and threshold"
    if claim["share_certified"] != float(np.count_nonzero(claimed) / pixels):
        yield f"share_certified={claim['share_certified']!r} is not {int(np.count_nonzero(claimed))} of {pixels} pixels"
    mp = context()
    exact = number(Fraction(law.sigma)) * (quantile(tau) if claim["tau"] > 0.5 else mp.mpf(0))
    radius = number(Fraction(claim["radius"]))
    if radius > exact or radius < exact * (1 - number(_RADIUS_SLACK)):
        yield f"radius={claim['radius']!r} is not sigma * Phi^-1(tau) = {float(exact):.9g}"
    yield from mask_stop_faults(data, allowed, _undecided(agreement[~claimed], samples["n"], allowed, tau, drift))


def _undecided(
    open_counts: NDArray[Any], n: int, allowed: Allowance, tau: Fraction, drift: Fraction
) -> tuple[int, int]:
    """Fewest and most pixels that may be undecided: at the cap those above tau; before, giving up is a forecast."""
    if n != allowed.looks[-1]:
        return 0, int(open_counts.size)
    counts = open_counts.astype(np.float64)
    edge = float(tau) * n
    return int(np.count_nonzero(counts > edge + 2 * float(drift) * n + 1e-9 * n)), int(
        np.count_nonzero(counts > edge - 1e-9 * n)
    )


def _threshold(
    correction: str, n: int, tau: Fraction, level: Fraction, histogram: list[tuple[int, int]], pixels: int
) -> int | None:
    """The family-wise test from (agreement count, pixels) in rising order."""
    if correction == "bonferroni":
        return _smallest_count(n, tau, level / pixels)
    # Step-down over the ordered p-values, one group of equal counts at a time: the first of a group has rank i.
    threshold, rank = None, 1
    for count, group in reversed(histogram):
        if not bool(upper_tail(count, n, tau) <= number(level / (pixels + 1 - rank))):
            break
        threshold, rank = count, rank + group
    return threshold


@lru_cache(maxsize=4096)
def _smallest_count(n: int, tau: Fraction, level: Fraction) -> int | None:
    target = number(level)
    low, high = 0, n + 1  # P(>= low) is above the level, P(>= high) = 0 is not
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if upper_tail(middle, n, tau) <= target else (middle, high)
    return high if high <= n else None
