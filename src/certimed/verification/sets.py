"""Do sets follow from their scores, the thresholds from the calibration's scores, and do both belong to one run?"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator, Mapping
from fractions import Fraction
from itertools import pairwise
from typing import Any

from certimed.integrity import digest
from certimed.verification.exact import context, number, quantile
from certimed.verification.laws import Law, read_law
from certimed.verification.shapes import CALIBRATION, shape_faults

_ROUNDING = Fraction(1, 10**9)  # what outward rounding may cost an honest level, relative
_SUM = 1e-9
_SAME = ("sigma", "noise", "space", "size", "templates", "tuning", "output", "normalise", "speed", "alpha")


def set_claim_faults(data: dict[str, Any], law: Law) -> Iterator[str]:
    """Every false statement of the claim and samples of a set; none if it holds by itself.

    Checked: one noisy copy, rising radii, probabilities that are some, and at every radius the classes whose score,
    computed anew and correctly rounded, is at most the recorded threshold. That thresholds prove what they should only
    the calibration shows (:func:`calibration_faults`), the probabilities only a redraw.
    """
    claim = data["claim"]
    yield from once_faults(data)
    p = claim["probabilities"]
    if abs(math.fsum(p) - 1) > _SUM:
        yield f"its probabilities sum to {math.fsum(p)!r}, not to 1"
    if len(claim["thresholds"]) != len(claim["radii"]) or any(len(row) != len(p) for row in claim["thresholds"]):
        yield "it does not have one threshold for each radius and class"
        return
    scores = _scores(p, claim["score"])
    for radius, row, listed in zip(claim["radii"], claim["thresholds"], claim["sets"]):
        wanted = [place for place, (own, most) in enumerate(zip(scores, row)) if own <= most]
        if listed != wanted:
            yield f"the set {listed!r:.80} at radius {radius!r} is not {wanted!r:.80}, which its scores give"
    if len(claim["sets"]) != len(claim["radii"]):
        yield f"it has {len(claim['sets'])} sets for {len(claim['radii'])} radii"


def once_faults(data: dict[str, Any]) -> Iterator[str]:
    """Is it of one noisy copy, with a guarantee over images, at radii that rise?"""
    samples, radii = data["samples"], data["claim"]["radii"]
    once = {"n0": 0, "n": 1, "budget": "fixed:1", "looks": [[1]], "proved_at": 0, "stop": {"kind": "cap reached"}}
    if samples != once:
        yield f"its samples {samples!r:.200} are not those of one noisy copy"
    if data["views"] is not None:
        yield "a sample of two views is two noisy copies of the image"
    if any(a >= b for a, b in pairwise(radii)) or radii[0] < 0 or data["claim"]["radius"] != radii[-1] or not radii[-1]:
        yield f"radii {radii!r:.120} must be at least 0 and rise to radius {data['claim']['radius']!r}, above 0"


def calibration_faults(found: Any, manifest: Mapping[str, Any]) -> Iterator[str]:
    """What is false about a calibration, or does not belong to the run that holds it."""
    faults = list(shape_faults(found, CALIBRATION))
    if faults:
        yield from faults
        return
    request, run = manifest["request"], found["run"]
    law = read_law(run["law"]) if isinstance(run.get("law"), dict) else "it names no noise law"
    if isinstance(law, str):
        yield law
        return
    yield from _belonging_faults(found, manifest)
    classes = manifest.get("classes")
    if not isinstance(classes, list) or found["alpha"] != request.get("alpha"):
        return
    yield from _unit_faults(found, len(classes))
    drift = law.drift([found["values"]])
    if not drift <= Fraction(found["variation"]) <= 2 * drift + Fraction(1, 10**12) * (law.levels is not None):
        yield f"variation={found['variation']!r} is not what images of {found['values']} values are charged"
    radii = found["radii"]
    if any(a >= b for a, b in pairwise(radii)) or radii[0] < 0 or not radii[-1]:
        yield f"radii {radii!r:.120} must be at least 0 and rise"
        return
    if len(found["thresholds"]) != len(radii):
        yield f"it has {len(found['thresholds'])} rows of thresholds for {len(radii)} radii"
        return
    if len(found["labels"]) == len(found["scores"]):
        yield from _threshold_faults(found, law, len(classes))


def _threshold_faults(found: dict[str, Any], law: Law, classes: int) -> Iterator[str]:
    for radius, row in zip(found["radii"], found["thresholds"]):
        levels = robust_levels(found["alpha"], radius, law.sigma, found["variation"])
        if len(row) != classes:
            yield f"it has {len(row)} thresholds for {classes} classes"
            return
        for label, threshold in enumerate(row):
            own = sorted(
                score for score, its in zip(found["scores"], found["labels"])
                if its == label or not found["class_conditional"]
            )  # fmt: skip
            places = range(_place(len(own), levels[0]), _place(len(own), levels[1]) + 1)
            possible = {own[place - 1] for place in places if place <= len(own)}
            if threshold not in possible:
                yield (
                    f"threshold {threshold!r} of class {label} at radius {radius!r} is not what {len(own)} scores "
                    f"prove ({', '.join(map(repr, sorted(possible))) or 'too few scores'})"
                )
                return


def robust_levels(alpha: float, radius: float, sigma: float, variation: float) -> tuple[Fraction, Fraction]:
    """Phi(Phi^-1(alpha - v) - radius / sigma) - v in 50 digits, rounded down, and what honest rounding may make of it.

    Not above 0: no number of images is enough.
    """
    mp, v = context(), Fraction(variation)
    left = Fraction(alpha) - v
    if left <= 0:
        return Fraction(0), Fraction(0)
    shifted = mp.ncdf(quantile(left) - number(Fraction(radius) / Fraction(sigma)))
    exact = Fraction(int(mp.floor(shifted * mp.mpf(2) ** 200)), 1 << 200) - v
    return exact, exact - _ROUNDING * abs(exact) - Fraction(1, 10**15)


def _place(m: int, level: Fraction) -> int:
    return m + 1 - math.floor((m + 1) * level)


def _unit_faults(found: dict[str, Any], classes: int) -> Iterator[str]:
    labels, scores, content = found["labels"], found["scores"], found["content"]
    if len(labels) != len(scores) or any(label >= classes for label in labels):
        yield f"{len(labels)} labels and {len(scores)} scores are not of units of {classes} classes"
    if any(not 0 <= score <= 1 + 1e-12 for score in scores):
        yield "a score is none from 0 to 1"
    for name in ("content", "groups"):
        if any(a >= b for a, b in pairwise(found[name])):
            yield f"{name} must be sorted, each once"
    if len(scores) > len(content) or (found["groups"] and len(scores) != len(found["groups"])):
        yield f"{len(scores)} units are not of {len(content)} images in {len(found['groups'])} groups"


def _belonging_faults(found: dict[str, Any], manifest: Mapping[str, Any]) -> Iterator[str]:
    """Was it made by the model, the noise and the settings of the run?"""
    request, run = manifest["request"], found["run"]
    its = run.get("request")
    if not isinstance(its, dict):
        yield "it does not say what was asked of the calibration"
        return
    for name in _SAME:
        mine = found["alpha"] if name == "alpha" else its.get(name)
        if mine != request.get(name):
            yield f"{name}={mine!r:.80} is not the run's {request.get(name)!r:.80}"
    for name in ("methods", "classes"):
        if run.get(name) != manifest.get(name):
            yield f"its {name} {run.get(name)!r:.120} are not the run's {manifest.get(name)!r:.120}"
    noise = {"float32": "gaussian-float32", "grid": "gaussian-grid"}.get(str(request.get("noise")))
    if run["law"].get("name") != noise or run["law"].get("sigma") != request.get("sigma"):
        yield f"its noise law {run['law']!r:.120} is not the run's"


def set_belongs(certificate: dict[str, Any], record: Mapping[str, Any], found: dict[str, Any]) -> Iterator[str]:
    """Is a set, sound by itself, one of this calibration, and of an image that was not calibrated on?"""
    claim = certificate["claim"]
    for name in ("radii", "score", "thresholds"):
        if claim.get(name) != found[name]:
            yield f"{name} {claim.get(name)!r:.120} are not the calibration's {found[name]!r:.120}"
    if claim["calibration"] != calibration_digest(found):
        yield "it is by another calibration than the run's"
    pixels = certificate["provenance"]["pixels"]
    if pixels is not None and f"sha256:{pixels}" in found["content"]:
        yield "its image was calibrated on"
    if found["group"] is None and record.get("group") is not None and found["groups"]:
        own = hashlib.sha256(f"certimed-group\0{record['group']}".encode()).hexdigest()
        if own in found["groups"]:
            yield "its group (patient, sequence) was calibrated on"
    if math.prod(certificate["shape"]) > found["values"]:
        yield f"its image of shape {certificate['shape']} is larger than every calibration image"


def calibration_digest(found: Mapping[str, Any]) -> str:
    """SHA-256 of a calibration without its sentences."""
    return digest({name: value for name, value in found.items() if name != "statement"})


def _scores(p: list[float], score: str) -> list[float]:
    """LAC: 1 - p. APS: 1 less the sum of what ranks lower, of equals the first one first; sums correctly rounded."""
    if score == "lac":
        return [1.0 - one for one in p]
    order = sorted(range(len(p)), key=lambda place: (-p[place], place))
    found, total = [0.0] * len(p), Fraction(0)
    for place in reversed(order):
        found[place] = 1.0 - float(total)
        total += Fraction(p[place])
    return found


def moved_probabilities(mine: dict[str, Any], its: dict[str, Any]) -> float:
    """Largest distance between the probabilities of two draws; infinite where they are of other classes."""
    a, b = mine["probabilities"], its["probabilities"]
    return math.inf if len(a) != len(b) else max(abs(x - y) for x, y in zip(a, b))
