"""Is every pixel a mask certificate calls certified one that its agreement counts prove?"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from fractions import Fraction
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from certimed.integrity import BROKEN_ARCHIVE
from certimed.verification.exact import context, number, quantile, upper_tail
from certimed.verification.looks import MASK_BUDGET, level_of, look_faults
from certimed.verification.native import native_faults
from certimed.verification.shapes import MASK_CERTIFICATE, certificate_faults, pixels_of

_LAYERS = ("agreement", "certified", "mask")
_TIE = Fraction(1, 10**11)  # p-values this close to their level may be decided either way, towards fewer pixels
_MOST_SAMPLES = 10**9
_SHARE_SLACK = Fraction(1, 10**9)  # shares of alpha may be smaller by rounding, never larger
_RADIUS_SLACK = Fraction(1, 10**9)


def mask_faults(data: Any, arrays: Path) -> Iterator[str]:
    """Every false statement of a mask certificate, most basic first; none if it holds.

    Checked: schema, the digest of the arrays, that they belong to the numbers, the family-wise test from the histogram
    of agreement counts with exact p-values (Holm, Bonferroni, Lehmann-Romano), the certified pixels, their share, the
    radius ``sigma * Phi^-1(tau)``, the radius at native resolution, and under a budget the looks, each look's share of
    alpha, and the reason to stop.

    Args:
        data: the certificate's JSON.
        arrays: its npz file.
    """
    chosen = isinstance(data, dict) and not MASK_BUDGET.keys().isdisjoint(data)
    faults = list(certificate_faults(data, {**MASK_CERTIFICATE, **(MASK_BUDGET if chosen else {})}))
    if faults:
        yield from faults
        return
    if data["n"] > _MOST_SAMPLES:
        yield f"n={data['n']} is more than {_MOST_SAMPLES} samples, which nobody has drawn"
        return
    if data["k_fwer"] != 1 and data["correction"] != "lehmann-romano":
        yield f"k_fwer={data['k_fwer']} does not belong to correction {data['correction']!r}"
        return
    if chosen and (faults := list(look_faults(data))):
        yield from faults
        return
    try:
        layers = _read(arrays)
    except (KeyError, *BROKEN_ARCHIVE) as error:
        yield f"its arrays {arrays.name} cannot be read ({error})"
        return
    yield from _array_faults(data, layers, arrays.name) or _proof_faults(data, layers)
    yield from native_faults(data)


def setting_faults(method: str, data: dict[str, Any], settings: dict[str, Any]) -> Iterator[str]:
    """Do tau, alpha and budget of a mask certificate follow from its run's settings?

    Of several taus each has certificates of its own, of methods named ``"... tau 0.9"``, at an equal share of alpha.
    """
    wanted, tau, alpha = settings.get("tau"), data.get("tau"), data.get("alpha")
    taus = wanted if isinstance(wanted, list) else [wanted]
    several = len(taus) > 1
    if wanted is not None and tau not in taus:
        yield f"tau={tau!r:.40} is not the run's tau={wanted!r:.80}"
    elif several and not method.endswith(f" tau {tau!r}"):
        yield f"tau={tau!r} does not belong to method {method!r:.80}"
    total = settings.get("alpha")
    if isinstance(total, float) and isinstance(alpha, float):
        share = Fraction(total) / (len(taus) if several else 1)
        if not share * (1 - _SHARE_SLACK if several else 1) <= Fraction(alpha) <= share:
            yield f"alpha={alpha!r} is not {float(share)!r}, what the run's alpha={total!r} leaves it"
    if data.get("budget") != settings.get("budget"):
        yield f"budget={data.get('budget')!r:.80} is not the run's budget={settings.get('budget')!r:.80}"


def _read(path: Path) -> dict[str, NDArray[Any]]:
    with np.load(path, allow_pickle=False) as stored:
        if sorted(stored.files) != sorted(_LAYERS):
            raise ValueError(f"it holds {sorted(stored.files)}, not {list(_LAYERS)}")
        return {name: stored[name] for name in _LAYERS}


def _array_faults(data: dict[str, Any], layers: dict[str, NDArray[Any]], name: str) -> list[str]:
    space = tuple(data["shape"][1:])
    for layer, values in layers.items():
        if values.shape != space:
            return [f"{layer} in {name} has shape {values.shape}, not {space}"]
        if values.dtype.kind != ("b" if layer == "certified" else "u"):
            return [f"{layer} in {name} has dtype {values.dtype}"]
    if _digest(layers) != data["arrays_sha256"]:
        return [f"arrays_sha256 is not the digest of {name}"]
    if int(layers["mask"].max()) >= data["num_classes"]:
        return [f"mask holds class {int(layers['mask'].max())} of {data['num_classes']} classes"]
    if int(layers["agreement"].max()) > data["n"]:
        return [f"agreement holds {int(layers['agreement'].max())} of n={data['n']} samples"]
    return []


def _digest(layers: dict[str, NDArray[Any]]) -> str:
    found = hashlib.sha256()
    for name in ("agreement", "mask"):
        found.update(json.dumps([name, list(layers[name].shape)]).encode())
        found.update(np.ascontiguousarray(layers[name], dtype="<u4").tobytes())
    return found.hexdigest()


def _proof_faults(data: dict[str, Any], layers: dict[str, NDArray[Any]]) -> Iterator[str]:
    pixels = pixels_of(data["shape"])
    if data["k_fwer"] > pixels:
        yield f"k_fwer={data['k_fwer']} exceeds the {pixels} pixels"
        return
    counts, sizes = np.unique(layers["agreement"], return_counts=True)
    histogram = list(zip(counts.tolist(), sizes.tolist()))
    strict, loose = _threshold(data, histogram, pixels, 1 - _TIE), _threshold(data, histogram, pixels, 1 + _TIE)
    if data["threshold"] not in (strict, loose):
        yield f"threshold={data['threshold']} is not the one {data['correction']} gives ({strict})"
    shown = layers["certified"]
    claimed = (
        np.zeros(shown.shape, dtype=bool) if data["threshold"] is None else layers["agreement"] >= data["threshold"]
    )
    if not np.array_equal(shown, claimed):
        yield f"{int(np.count_nonzero(shown != claimed))} pixels of 'certified' contradict agreement and threshold"
    if data["share_certified"] != float(np.count_nonzero(claimed) / pixels):
        yield f"share_certified={data['share_certified']!r} is not {int(np.count_nonzero(claimed))} of {pixels} pixels"
    mp = context()
    exact = number(Fraction(data["sigma"])) * (quantile(Fraction(data["tau"])) if data["tau"] > 0.5 else mp.mpf(0))
    radius = number(Fraction(data["radius"]))
    if radius > exact or radius < exact * (1 - number(_RADIUS_SLACK)):
        yield f"radius={data['radius']!r} is not sigma * Phi^-1(tau) = {float(exact):.9g}"


def _threshold(data: dict[str, Any], histogram: list[tuple[int, int]], pixels: int, lean: Fraction) -> int | None:
    """The family-wise test from (agreement count, pixels) in rising order."""
    n, alpha, tolerated = data["n"], level_of(data) * lean, data["k_fwer"]
    if data["correction"] == "bonferroni":
        return _smallest_count(n, Fraction(data["tau"]), alpha / pixels)
    # Step-down over the ordered p-values, one group of equal counts at a time: the first of a group has rank i.
    threshold, rank = None, 1
    for count, group in reversed(histogram):
        allowed = tolerated * alpha / (pixels if rank <= tolerated else pixels + tolerated - rank)
        if not bool(upper_tail(count, n, Fraction(data["tau"])) <= number(allowed)):
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
