"""Two records of one image, the one in the file and one drawn again, compared as data: every field, every count.

With the same noise key, model, data, kind of device, arithmetic, batch size and versions, everything must be equal. A
number of *near ties* may move: two runs of one program may sum in another order, and a noisy copy whose two highest
scores differ by less than that changes its class. In float32 sums err by about 1e-6 of a score; of copies that lie near
a decision border evenly, some 1e-5 are that close to it; :func:`near_ties` allows one, and one more for each 5 000. In
bfloat16 and float16, whose last bit is 4e-3 and 5e-4, one for each 500.

Where the circumstances differ, so may the noise itself, and only a statistical test is left; see :data:`LEVEL`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import takewhile
from typing import Any

import numpy as np
from numpy.typing import NDArray

from certimed.verification.exact import fisher
from certimed.verification.intervals import moved_values, values_p_value
from certimed.verification.masks import Layers, arrays_name
from certimed.verification.sets import moved_probabilities

EQUAL = "equal"
NEAR_TIES = "near ties only"
CONSISTENT = "consistent only"
DIFFERENT = "different"
LEVELS = (EQUAL, NEAR_TIES, CONSISTENT, DIFFERENT)
"""Verdicts, from best to worst."""

LEVEL = 1e-6
"""Level of the test of one certificate's counts where circumstances differ: a false alarm in a million.

Classes: for each of the K classes Fisher's exact test of "the same probability in both", two-sided, times K
(Bonferroni). Masks: likewise for each pixel. It can show that counts do not belong together, never that they do: at
n = 10 000 a share may be off by about 0.04 and pass.
"""

_MOST_PAIRS = 200
_FAR = 0.1  # of the middle half's range: by so much near ties may move a sorted value of a measurement
_FINE, _COARSE = 1e-4, 0.1  # by so much a probability on one noisy copy may move in float32, and in 16 bits
_DRAWN = (
    *("claim.prediction", "claim.abstained", "claim.radius", "claim.p_lower", "claim.q_upper", "claim.counts"),
    *("claim.selection", "claim.threshold", "claim.share_certified", "claim.arrays_sha256", "claim.intervals"),
    *("claim.probabilities", "claim.sets"),
    *("samples.n", "samples.looks", "samples.proved_at", "samples.stop", "native.radius"),
)
_APART = ("certificates", "clean", "scores", "arrays", "reason", "sha256")
_UNTOLD = ("provenance.device", "provenance.device_name", "provenance.dtype", "provenance.versions",
           "provenance.decoders", "provenance.pixels")  # fmt: skip


@dataclass(frozen=True)
class Comparison:
    """What became of one image.

    Attributes:
        item: which.
        level: one of :data:`LEVELS`.
        findings: (level, what differs), nothing where all is equal.
    """

    item: str
    findings: tuple[tuple[str, str], ...]

    @property
    def level(self) -> str:
        """The worst of the findings."""
        return worst(level for level, _ in self.findings)


def worst(levels: Iterator[str] | Sequence[str]) -> str:
    """The worst of some verdicts; equal where there are none."""
    return max(levels, key=LEVELS.index, default=EQUAL)


def near_ties(dtype: str, n: int) -> int:
    """How many of n counts may move in arithmetic of this description; see the module's docstring."""
    return 1 + n // (500 if "float16" in dtype else 5_000)


def moved_pixels(dtype: str, pixels: int) -> int:
    """How many pixels' candidate classes may move: each is decided by few selection samples, so ties are commoner."""
    return 1 + pixels // (100 if "float16" in dtype else 5_000)


def compare_records(
    recorded: Mapping[str, Any],
    now: Mapping[str, Any],
    layers: Mapping[str, Layers | str],
    *,
    changed: Mapping[str, tuple[Any, Any]],
) -> Comparison:
    """Compare the whole record of an image with the one that a redraw gave.

    Args:
        recorded: a line of a run, as JSON data.
        now: the same for the redraw; of a mask also ``"arrays"``: by :func:`arrays_name`, ``mask`` and ``agreement``.
        layers: the recorded arrays by the same names.
        changed: what differs between the circumstances of run and redraw; where it is empty all must be equal.
    """
    return Comparison(str(recorded["item"]), tuple(_record(recorded, now, layers, dict(changed))))


def differing(recorded: Any, now: Any, at: str = "") -> Iterator[tuple[str, Any, Any]]:
    """Places at which two JSON values differ, as dotted paths; lists of another length differ as a whole."""
    if isinstance(recorded, Mapping) and isinstance(now, Mapping):
        for name in sorted({*recorded, *now}):
            yield from differing(recorded.get(name), now.get(name), f"{at}.{name}" if at else name)
    elif (type(recorded) is not type(now) and not {type(recorded), type(now)} <= {int, float}) or recorded != now:
        yield at, recorded, now


def _within(place: str, parts: Sequence[str]) -> bool:
    return any(place == part or place.startswith(f"{part}.") for part in parts)


def _record(
    recorded: Mapping[str, Any], now: Mapping[str, Any], layers: Mapping[str, Any], changed: dict[str, Any]
) -> Iterator[tuple[str, str]]:
    own, other = ({name: value for name, value in one.items() if name not in _APART} for one in (recorded, now))
    for place, was, here in differing(own, other):
        yield DIFFERENT, f"{place} is {was!r:.80}, and {here!r:.80} here"
    if recorded["status"] != now["status"] or recorded["status"] == "failed":
        return
    mine, its = ({_key(one): one for one in record["certificates"]} for record in (recorded, now))
    if set(mine) != set(its):
        yield DIFFERENT, f"certificates are for {sorted(map(str, mine))}, and for {sorted(map(str, its))} here"
        return
    unlike: list[tuple[str, str]] = []
    for key in mine:
        unlike += _certificate(mine[key], its[key], layers, now.get("arrays", {}), changed)
    yield from unlike
    drawn = worst([level for level, _ in unlike])
    for method, predicted in recorded["clean"].items():
        here = now["clean"].get(method)
        if predicted != here:
            level = CONSISTENT if drawn == CONSISTENT or changed else DIFFERENT
            yield level, f"{method}: the clean prediction is {predicted}, and {here} here"
    if recorded["scores"] != now["scores"] and drawn == EQUAL:
        yield DIFFERENT, "its scores are not those that its arrays and the truth give here"


def _certificate(
    mine: Mapping[str, Any], its: Mapping[str, Any], layers: Mapping[str, Any], arrays: Any, changed: dict[str, Any]
) -> Iterator[tuple[str, str]]:
    name = " ".join(str(part) for part in _key(mine) if part is not None)
    places = list(differing(mine, its))
    exact = [one for one in places if not _within(one[0], (*_DRAWN, *_UNTOLD))]
    for place, was, here in exact:
        yield DIFFERENT, f"{name}: {place} is {was!r:.80}, and {here!r:.80} here"
    if exact:
        return
    own = dict(changed) | _circumstances(mine["provenance"], its["provenance"])
    pixels = [one["provenance"]["pixels"] for one in (mine, its)]
    if pixels[0] != pixels[1]:
        decoders = [one["provenance"]["decoders"] for one in (mine, its)]
        if decoders[0] == decoders[1] and not own:
            yield DIFFERENT, f"{name}: the image's pixels are not those that were certified"
            return
        was, here = map(_versions, decoders)
        yield CONSISTENT, f"{name}: this image decodes differently here (recorded with {was}, here {here})"
        own["pixels"] = (pixels[0], pixels[1])
    drawn = [place for place, _, _ in places if _within(place, _DRAWN)]
    pair = None
    if mine["kind"] == "mask":
        where = arrays_name(mine["item"], mine["method"], mine["claim"]["tau"])
        pair = layers.get(where), arrays.get(where)
        if any(not isinstance(one, Mapping) for one in pair):
            yield DIFFERENT, f"{name}: its arrays were not drawn again or cannot be read"
            return
    if own:
        yield from _tested(name, mine, its, pair, drawn)
        return
    yield from _moved(name, mine, its, pair, drawn)


def _circumstances(mine: Mapping[str, Any], its: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """What differs between the circumstances of two certificates, beside the pixels."""
    kinds = [str(one["device"]).partition(":")[0] for one in (mine, its)]
    found = {"device": (kinds[0], kinds[1])} if kinds[0] != kinds[1] else {}
    if mine["dtype"] != its["dtype"]:
        found["dtype"] = (mine["dtype"], its["dtype"])
    for part in ("versions", "decoders"):
        for library in sorted({*mine[part], *its[part]} - {"python"}):
            if mine[part].get(library) != its[part].get(library):
                found[library] = (mine[part].get(library), its[part].get(library))
    return found


def _moved(
    name: str, mine: Mapping[str, Any], its: Mapping[str, Any], pair: Any, drawn: list[str]
) -> Iterator[tuple[str, str]]:
    """Same circumstances: nothing may differ but near ties."""
    dtype = mine["provenance"]["dtype"]
    chosen = [one["claim"].get("selection", []) for one in (mine, its)]
    counted = max((abs(a - b) for a, b in zip(*chosen)), default=0)
    if counted > near_ties(dtype, mine["samples"]["n0"]):
        yield DIFFERENT, f"{name}: the selection counts {chosen[0]!r:.120} are {chosen[1]!r:.120} here"
        return
    if counted and mine["claim"].get("prediction") != its["claim"].get("prediction"):
        # A tie of the selection samples: what is counted for another class can only be tested.
        yield from _tested(name, mine, its, pair, drawn)
        return
    both = list(takewhile(lambda two: two[0][0] == two[1][0], zip(mine["samples"]["looks"], its["samples"]["looks"])))
    if mine["kind"] == "classes":
        pairs = [(was[0], was, here) for was, here in both]
        if mine["samples"]["n"] == its["samples"]["n"]:
            pairs.append((mine["samples"]["n"], mine["claim"]["counts"], its["claim"]["counts"]))
        for n, was, here in pairs:
            moved = max(abs(a - b) for a, b in zip(was, here))
            counted = max(counted, moved)
            if moved > near_ties(dtype, n):
                yield DIFFERENT, f"{name}: {was!r:.120} of {n} samples are {here!r:.120} here"
                return
    elif mine["kind"] == "interval":
        far = moved_values(mine["claim"], its["claim"]) if mine["samples"]["n"] == its["samples"]["n"] else 0.0
        if far > _FAR:
            yield DIFFERENT, f"{name}: sorted values are apart here by {far:.3g} of the range of their middle half"
            return
        counted = int(far > 0)
    elif mine["kind"] == "set":
        far = moved_probabilities(mine["claim"], its["claim"])
        if far > (_COARSE if "float16" in dtype else _FINE):
            yield DIFFERENT, f"{name}: probabilities on the noisy copy are up to {far:.3g} apart here"
            return
        counted = int(far > 0)
    elif mine["samples"]["n"] == its["samples"]["n"]:
        (was, here), n = pair, mine["samples"]["n"]
        classes = was["mask"] != here["mask"]
        apart = np.abs(was["agreement"].astype(np.int64) - here["agreement"].astype(np.int64))[~classes]
        many, most = int(np.count_nonzero(classes)), int(apart.max(initial=0))
        counted = max(counted, many + most)
        if many > moved_pixels(dtype, classes.size) or most > near_ties(dtype, n):
            yield DIFFERENT, f"{name}: {many} pixels have another class here, and counts are up to {most} of {n} apart"
            return
    if counted == 0 and drawn:
        yield DIFFERENT, f"{name}: its counts are equal, and {', '.join(drawn)} differ"
    elif drawn and mine["samples"]["n"] != its["samples"]["n"]:
        # Where a tie moved the stop, what was drawn after it can only be tested.
        yield from _tested(name, mine, its, pair, drawn)
    elif drawn:
        yield NEAR_TIES, f"{name}: at most {counted} counts moved"


def _tested(
    name: str, mine: Mapping[str, Any], its: Mapping[str, Any], pair: Any, drawn: list[str]
) -> Iterator[tuple[str, str]]:
    """Other circumstances: are the counts of one model, as far as a test can tell?"""
    sizes = mine["samples"]["n"], its["samples"]["n"]
    if mine["kind"] == "classes":
        counts = mine["claim"]["counts"], its["claim"]["counts"]
        if len(counts[0]) != len(counts[1]):
            yield DIFFERENT, f"{name}: it was counted over {len(counts[0])} classes, and {len(counts[1])} here"
            return
        p_value = min(1.0, len(counts[0]) * min(fisher(a, sizes[0], b, sizes[1]) for a, b in zip(*counts)))
        said = f"{counts[0]!r:.120} of {sizes[0]} samples, {counts[1]!r:.120} of {sizes[1]} here"
    elif mine["kind"] == "interval":
        p_value = values_p_value(mine["claim"], its["claim"])
        said = f"values of {len(mine['claim']['intervals'])} measurements"
    elif mine["kind"] == "set":
        p_value, said = 1.0, "one noisy copy, which no test can tell apart"
    else:
        p_value = mask_p_value(pair[0], pair[1], *sizes)
        said = f"agreement over {pair[0]['mask'].size} pixels"
    if p_value <= LEVEL:
        yield DIFFERENT, f"{name}: {said}: of no one model (p = {p_value:.2g})"
    else:
        verdict = "equal" if not drawn else f"not equal, p = {p_value:.2g}"
        yield CONSISTENT, f"{name}: {said}: {verdict}"


def mask_p_value(recorded: Layers, now: Layers, n: int, m: int) -> float:
    """Whether two draws of a mask are of one model: the smallest of all pixels' exact tests, times their number.

    Where both have the same candidate class, Fisher's test of its counts. Where not, the class recorded was found at
    most in the samples that do not agree with the other one; the test is against that many, the most favourable number.
    """
    if recorded["mask"].shape != now["mask"].shape:
        return 0.0
    first, second = (layers["agreement"].ravel().astype(np.int64) for layers in (recorded, now))
    other = recorded["mask"].ravel() != now["mask"].ravel()
    second = np.where(other, np.maximum(m - second, 0), second)
    lower = other & (first * m <= second * n)  # the other class leaves room for as many and more
    pairs = np.unique(np.stack([first[~lower], second[~lower]]), axis=1)
    if not pairs.size:
        return 1.0
    # The test is run where it may reject: at the pairs furthest apart. Leaving out others can only raise the p-value.
    share: NDArray[np.float64] = (pairs[0] + pairs[1]) / (n + m)
    apart = np.abs(pairs[0] / n - pairs[1] / m) / np.sqrt(np.maximum(share * (1 - share), 0.5 / (n + m)))
    furthest = pairs[:, np.argsort(-apart, kind="stable")[:_MOST_PAIRS]]
    return min(1.0, first.size * min(fisher(int(a), n, int(b), m) for a, b in furthest.T))


def _key(certificate: Mapping[str, Any]) -> tuple[Any, Any]:
    return certificate["method"], certificate["claim"].get("tau")


def _versions(decoders: Mapping[str, str]) -> str:
    return ", ".join(f"{name} {version}" for name, version in decoders.items()) or "no decoder"
