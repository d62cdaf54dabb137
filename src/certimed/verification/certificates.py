"""Is everything true that one certificate says, whatever it claims?"""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

from certimed.verification.classes import class_claim_faults
from certimed.verification.intervals import interval_claim_faults
from certimed.verification.laws import read_law
from certimed.verification.masks import mask_claim_faults, read_layers
from certimed.verification.native import native_faults
from certimed.verification.settings import settings_faults
from certimed.verification.shapes import certificate_shape

_ROUNDING = Fraction(1, 10**9)  # shares may be smaller than the exact ones by rounding, never larger
_EFFECTIVE = 1e-9


def certificate_faults(data: Any, arrays: Path | None = None) -> Iterator[str]:
    """Every false statement of a certificate of schema 2, most basic first; none if it holds.

    Args:
        data: the certificate's JSON.
        arrays: the npz file of a mask certificate.
    """
    faults = list(certificate_shape(data))
    law = "" if faults else read_law(data["law"])
    if isinstance(law, str):
        yield from faults or [law]
        return
    yield from share_faults(data)
    yield from _scope_faults(data)
    if data["kind"] == "classes":
        yield from class_claim_faults(data, law)
    elif data["kind"] == "interval":
        yield from interval_claim_faults(data, law)
    else:
        layers = "a mask certificate has arrays" if arrays is None else read_layers(arrays)
        yield from mask_claim_faults(data, law, layers)
    misplaced = law.placement_fault(data["placement"], data["shape"])
    if misplaced is not None:
        yield f"placement: {misplaced}"
        return
    yield from settings_faults(data, law)
    yield from native_faults(data)


def share_faults(data: dict[str, Any]) -> Iterator[str]:
    """Is the level spent what its share of the total may be?"""
    share, chosen = data["alpha"], data["chosen_from"]
    level, total, of = Fraction(share["level"]), Fraction(share["total"]), share["of"]
    if (of == 1) != (share["why"] == "alone"):
        yield f"alpha is shared {share['why']!r} by {of}"
    elif not total * (1 - (_ROUNDING if of > 1 else 0)) <= level * of <= total:
        yield f"alpha: level={share['level']!r} is not total={share['total']!r} shared by {of}"
    if share["why"] == "taus" and data["kind"] != "mask":
        yield f"alpha: a claim of kind {data['kind']!r} has no taus to share with"
    if chosen and (share["why"] != "methods" or of < len(chosen)):
        yield f"it was chosen from {len(chosen)}, and its alpha is shared {share['why']!r} by {of}"


def _scope_faults(data: dict[str, Any]) -> Iterator[str]:
    chosen, views, sigma = data["chosen_from"], data["views"], data["law"]["sigma"]
    if chosen and data["scope"] == "end-to-end":
        yield "it was chosen by looking at the image, and says it is end-to-end"
    if data["scope"] == "chosen at x" and not chosen:
        yield "its scope is 'chosen at x', and it does not say from what it was chosen"
    if len(set(chosen)) < len(chosen) or (len(chosen) == 1):
        yield f"chosen_from={chosen!r:.120} is no choice"
    if views is not None:
        effective = (views[0] ** -2 + views[1] ** -2) ** -0.5
        if abs(effective / sigma - 1) > _EFFECTIVE:
            yield f"views of noise {views} are worth sigma={effective:.9g}, not {sigma!r}"
