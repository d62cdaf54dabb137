"""The one place where certificates become English. Nothing reads it back: every fact stands in a field."""

from __future__ import annotations

import math
from html import escape
from typing import TYPE_CHECKING, Any

from certimed.budgets import Fixed, Stop, parse_budget
from certimed.certificates.claims import ClassClaim, MaskClaim
from certimed.certificates.intervals import IntervalClaim, MeasuredInterval
from certimed.certificates.rounding import Side, shown
from certimed.certificates.scope import CHOSEN_AT_X, END_TO_END, FROZEN_AT_X, MODEL_INPUT, NATIVE, SETTINGS
from certimed.certificates.settings import ADDED, VariedSetting
from certimed.certificates.units import GREY_LEVELS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from certimed.certificates.certificate import Certificate
    from certimed.certificates.kinds import ClassCertificate, IntervalCertificate, MaskCertificate
    from certimed.certificates.native import NativeRadius

SCOPE_WORDS = {
    END_TO_END: "the whole pipeline from the certified space to the answer",
    FROZEN_AT_X: (
        "the classifier with the prompt that was tuned on this very image, held fixed; an attacked image would be "
        "tuned to another prompt, and nothing is proved about that pipeline"
    ),
    CHOSEN_AT_X: (
        "the model that was chosen by looking at this very image; an attacked image might choose another one, and "
        "nothing is proved about that pipeline"
    ),
}
SPACE_WORDS = {
    MODEL_INPUT: "the image after resizing and cropping, before mean and std, values in [0, 1]",
    NATIVE: "the image at its native resolution, values in [0, 1], resizing inside the certified model",
    SETTINGS: (
        "the settings of the workflow, each in units of its noise, around the image's own; a user or a program that "
        "sets them otherwise is covered, and nothing that changes the raw image is"
    ),
}


def failure(alpha: float) -> str:
    """``"fails with probability at most 0.001"``: never a success probability, which rounds to 1."""
    return f"fails with probability at most {shown(alpha, 'upper', digits=3)}"


def radius_text(radius: float) -> str:
    """A radius rounded down."""
    return shown(radius, "lower", digits=6)


def statement(certificate: Certificate[Any], names: Sequence[str] = ()) -> str:
    """Exactly what was proved, in one paragraph; see :meth:`certimed.certificates.Certificate.statement`."""
    c = certificate
    head = _HEADS[c.claim.kind](c, names)
    parts = [head]
    if not c.abstained:
        parts.append(f"Space: {SPACE_WORDS[c.space]}.")  # type: ignore[index]
        parts.append(f"Scope: {SCOPE_WORDS[c.scope]}.")  # type: ignore[index]
        parts += settings_sentences(c)
        parts += [] if c.native is None else [_at_largest(c) + native_sentence(c.native)]
        parts += assumptions(c)
    parts += samples_sentences(c) + sharing_sentences(c)
    return " ".join(parts)


def class_text(index: int, names: Sequence[str]) -> str:
    """A class by its name where one is known, else by its number."""
    return names[index] if 0 <= index < len(names) else f"class {index}"


def _class_head(c: ClassCertificate, names: Sequence[str]) -> str:
    answer = class_text(c.prediction, names)
    if c.abstained:
        return (
            f"Nothing was proved for {c.item}: {c.abstention} ({answer} won {c.counts[c.prediction]} of "
            f"{c.n} noisy copies)."
        )
    return (
        f"The smoothed classifier ({_noise(c)}) answers {answer} for every {_change(c)} of {c.item} with L2 norm "
        f"{_in_units(c)}below {radius_text(c.radius)}. This {failure(c.alpha)} over the noise drawn."
    )


def _mask_head(c: MaskCertificate, _: Sequence[str]) -> str:
    if c.abstained:
        return (
            f"Nothing was proved for {c.item}: no pixel's agreement over {c.n} noisy copies shows a probability above "
            f"{c.tau:g} once all {c.pixels} pixels are accounted for."
        )
    count = int(c.certified.sum())
    return (
        f"All {count} certified pixels ({share_text(c.share_certified)} of {c.pixels}) keep their class under the "
        f"smoothed segmenter ({_noise(c)}) for every {_change(c)} of {c.item} with L2 norm {_in_units(c)}below "
        f"{radius_text(c.radius)} ({c.correction}, all pixels at once). This {failure(c.alpha)} over the noise drawn."
    )


def _interval_head(c: IntervalCertificate, _: Sequence[str]) -> str:
    if c.abstained:
        counts = ", ".join(f"{one.name} ({one.undefined} of {one.n} not defined)" for one in c.claim.intervals)
        return f"Nothing was proved for {c.item}: no end of an interval is finite: {counts}."
    parts = []
    for one in c.claim.intervals:
        ranges = [f"{interval_text(one, index)} below {radius_text(r)}" for index, r in enumerate(c.radii)]
        places = [_place_text(one, index, r) for index, r in enumerate(c.radii)] if one.threshold is not None else []
        undefined = [f"not defined on {one.undefined} of {one.n} noisy copies"] if one.undefined else []
        parts.append("; ".join([f"{one.name} (here {median_text(one)}): {', '.join(ranges)}", *places, *undefined]))
    unknown = " The spacing is not known, so sizes are in pixels." if in_pixels(c) else ""
    return (
        f"The median under noise ({_noise(c)}) of each measurement that this pipeline reports of {c.item} stays in its "
        f"interval for every {_change(c)} with L2 norm {_in_units(c)}below the radius named with it: "
        f"{'. '.join(parts)}.{unknown} All of this together {failure(c.alpha)} over the noise drawn. It is the median "
        "under noise that holds, so deploy that median."
    )


def _noise(c: Certificate[Any]) -> str:
    settings = c.about.settings
    if settings is None:
        return f"Gaussian noise, sigma {c.sigma:g}"
    return f"Gaussian noise on {', '.join(one.name for one in settings.axes)}"


def _change(c: Certificate[Any]) -> str:
    return "perturbation" if c.about.settings is None else "change of these settings"


def _in_units(c: Certificate[Any]) -> str:
    return "" if c.about.settings is None else "(each in units of its noise) "


def settings_sentences(c: Certificate[Any]) -> list[str]:
    """What a radius in the space of settings means for each of them, in its own unit."""
    settings = c.about.settings
    if settings is None:
        return []
    alone = "; ".join(f"{one.name} {reach_text(one, c.real_radius)}" for one in settings.axes)
    noise = ", ".join(f"{one.name} {noise_text(one)}" for one in settings.axes)
    jointly = "" if len(settings.axes) == 1 else (
        f" Jointly: all inside one ellipsoid, in which the squared changes, each in units of its noise ({noise}), sum "
        f"up to less than {radius_text(c.real_radius)} squared."
    )  # fmt: skip
    return [f"{_at_largest(c)}Each setting alone: {alone}.{jointly}"]


def reach_text(one: VariedSetting, radius: float) -> str:
    """How far one setting alone may be from the image's own value, rounded down."""
    far, unit = shown(one.reach(radius), "lower", digits=4), f" {one.unit}" if one.unit else ""
    if one.how == ADDED:
        return f"within {far}{unit} of {one.at:g}{unit}"
    return f"within a factor of {far} of {one.at:g}{unit}"


def noise_text(one: VariedSetting) -> str:
    """The noise on one setting."""
    return f"{one.scale:g} {one.unit}".rstrip() if one.how == ADDED else f"{one.scale:g} on its logarithm"


def median_text(one: MeasuredInterval) -> str:
    """The median of the samples with its unit; no bound."""
    return "not defined" if one.median is None else f"{one.median:.6g}{_unit(one)}"


def in_pixels(c: IntervalCertificate) -> bool:
    """Whether a size is given in pixels because the spacing is not known."""
    return any(one.unit in ("pixels", "voxels") for one in c.claim.intervals)


def _place_text(one: MeasuredInterval, index: int, radius: float) -> str:
    place = one.place(index)
    proved = "on which side of" if place is None else place
    return f"{'not ' if place is None else ''}proved {proved} {one.threshold:g} at radius {radius_text(radius)}"


def interval_text(one: MeasuredInterval, index: int) -> str:
    """An interval with its unit, rounded outwards."""
    return f"{end_text(one.lower[index], 'lower')} to {end_text(one.upper[index], 'upper')}{_unit(one)}"


def end_text(end: float, side: Side) -> str:
    """An end of an interval rounded outwards; words where it is infinite."""
    if math.isinf(end):
        return "no lower end" if side == "lower" else "no upper end"
    return shown(end, side, digits=6)


def _unit(one: MeasuredInterval) -> str:
    return f" {one.unit}" if one.unit else ""


_HEADS: dict[str, Any] = {
    ClassClaim.kind: _class_head,
    MaskClaim.kind: _mask_head,
    IntervalClaim.kind: _interval_head,
}


def _at_largest(c: Certificate[Any]) -> str:
    """Words before a sentence about one radius, where a certificate has several."""
    several = c.claim.kind == IntervalClaim.kind and len(c.claim.radii) > 1
    return f"Of the radius {radius_text(c.radius)}: " if several else ""


def share_text(share: float) -> str:
    """A certified share in per cent, rounded down."""
    return f"{shown(share, 'lower', places=2, scale=100)} %"


def native_sentence(native: NativeRadius) -> str:
    """What the radius means at native resolution."""
    return (
        f"At native resolution ({native.size}) the same holds for perturbations with L2 norm below "
        f"{radius_text(native.radius)}, as preparing the image ({native.geometry.describe()}; linear) multiplies no "
        f"norm by more than {shown(native.norm, 'upper', digits=6)}."
    )


def assumptions(c: Certificate[Any]) -> list[str]:
    """For which perturbations the statement holds in the arithmetic that ran, and what it assumes."""
    function = "the model is a function of its input (checked once in every run)"
    levels = c.law.levels
    if levels is None:
        return [f"Assumed: real arithmetic where float32 noise is drawn and added, and that {function}."]
    if c.about.settings is not None:
        return [
            f"This holds in floating point, settings being rounded to 1/{levels} of their noise. Assumed: that "
            f"{function}."
        ]
    return [
        f"{_at_largest(c)}This holds in floating point, for every perturbed image on the grid of step 1/{levels}"
        + (", on which this image lies" if c.about.placement.on_grid else ", to which images are rounded")
        + f"; for any other perturbation, with L2 norm below {radius_text(c.real_radius)}. Assumed: that {function}."
    ]


def stop_text(stop: Stop, n: int, n0: int) -> str:
    """Why the samples ended."""
    if stop.kind == "interrupted":
        return f"interrupted after {n} samples"
    if stop.agreeing is not None:
        return f"{n} samples planned from {stop.agreeing} of {n0} selection samples"
    words: list[str] = [stop.kind]
    if stop.kind == "futile" and stop.below is not None:
        words.append(f"not above reported radius {stop.below:g}")
    elif stop.kind == "answered" and stop.above is not None:
        words.append(
            f"above reported radius {stop.above:g}"
            if stop.below is None
            else f"between reported radii {stop.above:g} and {stop.below:g}"
        )
    elif stop.undecided is not None:
        words.append(f"{stop.undecided} pixels undecided")
    return ": ".join(words)


def samples_sentences(c: Certificate[Any]) -> list[str]:
    """About the samples, unless their number was fixed."""
    if isinstance(parse_budget(c.budget), Fixed):
        return []
    looks = "its one look" if len(c.samples.looks) == 1 else f"all {len(c.samples.looks)} looks"
    return [f"Samples: {c.n} under budget {c.budget} ({stop_text(c.stop, c.n, c.n0)}); alpha covers {looks}."]


def sharing_sentences(c: Certificate[Any]) -> list[str]:
    """With what the failure probability is shared, which views a sample has, and from what this one was chosen."""
    found = []
    level, total = (shown(value, "upper", digits=3) for value in (c.share.level, c.share.total))
    if c.about.views is not None:
        tuned, classified = c.about.views
        found.append(
            f"The prompt is tuned on one noisy view (sigma {tuned:.6g}) and another is classified (sigma "
            f"{classified:.6g}), both redrawn in every sample; sigma is the effective one, 1/s^2 = 1/s1^2 + 1/s2^2."
        )
    if c.share.why == "taus":
        found.append(f"One of {c.share.of} certificates from the same samples: together they fail with {total}.")
    elif c.share.why == "methods":
        found.append(
            f"{c.share.of} methods were compared, each at {level} (Bonferroni); together they fail with {total}."
        )
    if c.about.chosen_from:
        found.append(f"Chosen at this image as the largest radius of {', '.join(c.about.chosen_from)}.")
    return found


def short(c: Certificate[Any]) -> str:
    """For ``repr``."""
    budget = parse_budget(c.budget)
    spent = f"n={c.n}" if isinstance(budget, Fixed) else f"n={c.n} of {c.budget}"
    setting = f"{spent}, alpha={shown(c.alpha, 'upper', digits=3)}, sigma={c.sigma:g}"
    name = type(c).__name__
    if c.claim.kind == ClassClaim.kind and c.abstained:
        return f"{name}({c.item!r}: abstained, {c.abstention}; {setting})"  # type: ignore[attr-defined]
    native = "" if c.native is None else f" ({shown(c.native.radius, 'lower', places=4)} at native {c.native.size})"
    rms = shown(c.units().rms_grey_levels, "lower", digits=3)
    size = f"radius {shown(c.radius, 'lower', places=4)} L2 = {rms} grey levels RMS{native}"
    if c.about.settings is not None:
        alone = ", ".join(f"{one.name} {reach_text(one, c.real_radius)}" for one in c.about.settings.axes)
        size = f"radius {shown(c.radius, 'lower', places=4)} of the noise: {alone}"
    return f"{name}({c.item!r}: {_SHORT[c.claim.kind](c, size)}, {setting}, {c.scope})"


def _short_class(c: ClassCertificate, size: str) -> str:
    return f"class {c.prediction}, {size}; p>={shown(c.p_lower, 'lower', places=4)}"


def _short_mask(c: MaskCertificate, size: str) -> str:
    certified = f"{share_text(c.share_certified)} of {c.pixels} pixels certified"
    return f"{certified}, {size}; {c.correction}, tau={c.tau:g}"


def _short_interval(c: IntervalCertificate, size: str) -> str:
    at = f"at {shown(c.radii[-1], 'lower', places=4)} L2"
    return "; ".join(f"{one.name} {interval_text(one, len(c.radii) - 1)}" for one in c.claim.intervals) + f" {at}"


_SHORT: dict[str, Any] = {
    ClassClaim.kind: _short_class,
    MaskClaim.kind: _short_mask,
    IntervalClaim.kind: _short_interval,
}


def rows(c: Certificate[Any]) -> dict[str, str]:
    """A certificate's numbers for a table: heading to value, bounds rounded outwards."""
    units = c.units()
    found = {
        "image": c.item,
        **_ROWS[c.claim.kind](c),
    }
    if c.about.settings is not None:
        found["radius (L2, in units of the noise)"] = shown(c.radius, "lower", places=4)
        found |= {f"{one.name} alone": reach_text(one, c.real_radius) for one in c.about.settings.axes}
    else:
        found |= {
            "radius (L2, [0, 1] units)": shown(c.radius, "lower", places=4),
            "radius (L2, grey levels)": shown(units.l2_grey_levels, "lower", places=1),
            "per-value RMS (grey levels)": shown(units.rms_grey_levels, "lower", digits=3),
            "L-infinity implied (grey levels)": shown(units.linf_grey_levels, "lower", digits=3),
        }
    if c.native is not None:
        native = c.native.units()
        found[f"native radius (L2, {c.native.size})"] = (
            f"{shown(native.l2, 'lower', places=4)} = {shown(native.l2 * GREY_LEVELS, 'lower', places=1)} grey levels"
        )
        found["native per-value RMS (grey levels)"] = shown(native.rms_grey_levels, "lower", digits=3)
        found["preparation"] = f"{c.native.geometry.describe()}; norm at most {shown(c.native.norm, 'upper', digits=6)}"
    return found | {
        "samples": f"{c.n0} + {c.n}",
        "budget": f"{c.budget}: {stop_text(c.stop, c.n, c.n0)}",
        "alpha, sigma": f"{shown(c.alpha, 'upper', digits=3)}, {c.sigma:g}",
        "scope": c.scope,
        "space": c.space,
    }


def _class_rows(c: ClassCertificate) -> dict[str, str]:
    answer = f"abstained ({c.abstention})" if c.abstained else f"class {c.prediction}"
    return {"answer": answer, "p lower": shown(c.p_lower, "lower", places=6)}


def _mask_rows(c: MaskCertificate) -> dict[str, str]:
    return {
        "pixels certified": f"{share_text(c.share_certified)} of {c.pixels}",
        "abstained": "; ".join(f"{name}: {count}" for name, count in c.abstention().items()),
        "correction, tau": f"{c.correction}, {c.tau:g}",
    }


def _interval_rows(c: IntervalCertificate) -> dict[str, str]:
    found = {}
    for one in c.claim.intervals:
        found[f"{one.name}, median of samples"] = median_text(one)
        for index, radius in enumerate(c.radii):
            place = one.place(index)
            decided = "" if place is None else f" ({place} {one.threshold:g})"
            found[f"{one.name}, below {radius_text(radius)}"] = interval_text(one, index) + decided
    return found


_ROWS: dict[str, Any] = {
    ClassClaim.kind: _class_rows,
    MaskClaim.kind: _mask_rows,
    IntervalClaim.kind: _interval_rows,
}


def card(c: Certificate[Any]) -> str:
    """The rows, a section's layers and the statement as HTML, for notebooks.

    Everything is escaped: an image's name may be anything.
    """
    body = "".join(f"<tr><th>{escape(name)}</th><td>{escape(value)}</td></tr>" for name, value in rows(c).items())
    shown_layers = ""
    if isinstance(c.claim, MaskClaim):
        from certimed.certificates.pictures import figures  # Pillow: only where something is shown

        shown_layers = figures(c)  # type: ignore[arg-type]
    return f"<table>{body}</table>{shown_layers}<p>{escape(statement(c))}</p>"
