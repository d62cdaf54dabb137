"""Certificates of a class, of a mask and of measurements, and any of them from its file."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from certimed.budgets import Betting, parse_budget
from certimed.certificates.arrays import read_arrays
from certimed.certificates.certificate import SCHEMA, TOO_FEW_SAMPLES, UNSTABLE, C, Certificate
from certimed.certificates.circumstances import Circumstances, Samples, Share
from certimed.certificates.claims import CLAIMS, ClassClaim, MaskClaim
from certimed.certificates.fields import Fields
from certimed.certificates.intervals import IntervalClaim, MeasuredInterval
from certimed.certificates.native import NativeRadius
from certimed.certificates.provenance import Provenance
from certimed.certificates.scope import NATIVE
from certimed.certificates.settings import VariedSettings
from certimed.errors import InputError
from certimed.noise import Placement, law_from_dict
from certimed.operators.geometry import native_radius
from certimed.statistics import band_index, radius_map_bonferroni


@dataclass(frozen=True, repr=False)
class ClassCertificate(Certificate[ClassClaim]):
    """The certificate of a class; see :class:`Certificate`."""

    @property
    def prediction(self) -> int:
        """Class index; a candidate only where it abstained."""
        return self.claim.prediction

    @property
    def p_lower(self) -> float:
        """Lower confidence bound on the probability of ``prediction`` under noise."""
        return self.claim.p_lower

    @property
    def q_upper(self) -> float | None:
        """Upper confidence bound on every other class's probability, None for the one-sided bound."""
        return self.claim.q_upper

    @property
    def counts(self) -> tuple[int, ...]:
        """Estimation counts of all classes."""
        return self.claim.counts

    @property
    def bound(self) -> str:
        """Name of the bound."""
        return self.claim.bound

    @property
    def abstention(self) -> str | None:
        """Why nothing was proved: ``"too few samples"`` if the majority is there but not significant with the samples
        drawn (or, where the budget gave up early, with all it could have drawn), else ``"unstable under noise"``; None
        where something was proved. What takes the majority's place is decided for the bound in use: under a betting
        budget the share that its radius needs, for bounds of two sides the strongest rival's share.
        """
        if not self.abstained:
            return None
        agreeing = self.counts[self.prediction]
        budget = parse_budget(self.budget)
        if isinstance(budget, Betting):
            few = agreeing > self.law.probability(budget.radius) * self.n
        elif self.bound == "one-sided":
            few = 2 * agreeing > self.n
        else:
            few = agreeing > max(count for index, count in enumerate(self.counts) if index != self.prediction)
        return TOO_FEW_SAMPLES if few else UNSTABLE


@dataclass(frozen=True, repr=False)
class MaskCertificate(Certificate[MaskClaim]):
    """The certificate of a mask; see :class:`Certificate`."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.claim.sigma != self.law.sigma:
            raise InputError(f"the claim's sigma {self.claim.sigma} is not the noise's, {self.law.sigma}")

    @property
    def label(self) -> str:
        """The method, and the tau where there are several."""
        return self.method if self.share.why != "taus" else f"{self.method}, tau {self.tau:g}"

    @property
    def mask(self) -> NDArray[np.unsignedinteger[Any]]:
        """Candidate class of each pixel."""
        return self.claim.mask

    @property
    def agreement(self) -> NDArray[np.integer[Any]]:
        """How many estimation samples agree with ``mask``."""
        return self.claim.agreement

    @property
    def threshold(self) -> int | None:
        """Smallest agreement that is certified."""
        return self.claim.threshold

    @property
    def num_classes(self) -> int:
        """Number of classes."""
        return self.claim.num_classes

    @property
    def tau(self) -> float:
        """Probability that a certified pixel's class is shown to exceed."""
        return self.claim.tau

    @property
    def correction(self) -> str:
        """``"holm"`` or ``"bonferroni"``."""
        return self.claim.correction

    @property
    def certified(self) -> NDArray[np.bool_]:
        """Boolean: where the class in ``mask`` is proved."""
        return self.claim.certified

    @property
    def pixels(self) -> int:
        """Number of pixels (voxels) tested."""
        return self.claim.pixels

    @property
    def share_certified(self) -> float:
        """Share of pixels with a proved class, 0..1."""
        return self.claim.share_certified

    @property
    def level(self) -> float:
        """Failure probability of the last look's test: its part of ``share.level``."""
        from certimed.budgets.kinds import look_shares

        sizes, _ = parse_budget(self.budget).mask_looks()
        return look_shares(len(sizes), self.share.level)[len(self.samples.looks) - 1]

    def abstention(self) -> dict[str, int]:
        """Abstained pixels by cause: agreement above ``tau`` but not yet significant, or not above ``tau`` at all."""
        promising = self.agreement > self.tau * self.n
        few = int(np.count_nonzero(promising & ~self.certified))
        return {TOO_FEW_SAMPLES: few, UNSTABLE: self.pixels - int(np.count_nonzero(self.certified)) - few}

    def histogram(self) -> NDArray[np.int64]:
        """int64 ``(n + 1,)``: number of pixels at each agreement count; all the correction depends on."""
        return np.bincount(self.agreement.ravel(), minlength=self.n + 1)

    def radius_map(self) -> NDArray[np.float64]:
        """float64 ``space``: for each pixel a radius of its own, valid for all pixels and all radii at once. Cached.

        ``r_i = sigma * Phi^-1(lower bound of P(class i))``, Clopper-Pearson at ``level / pixels``. Guarantee: with
        probability at least ``1 - alpha`` no pixel changes its class in ``mask`` anywhere in its own open ball
        (Bonferroni, over the looks too), so any threshold may be read off after looking. This is a second statement
        from the same samples: it and the one about ``certified`` hold with probability ``1 - alpha`` each,
        ``1 - 2 alpha`` together.
        """
        return self._radius_map

    @cached_property
    def _radius_map(self) -> NDArray[np.float64]:
        radii = radius_map_bonferroni(self.agreement, self.n, self.level, self.pixels, self.sigma, self.variation)
        radii.setflags(write=False)
        return radii

    def layer(self, name: str) -> NDArray[Any]:
        """``"mask"``, ``"certified"`` or its opposite ``"abstained"`` (0 or 1), or ``"radius"`` (the radius map), as an
        array of ``space``.
        """
        if name not in LAYERS:
            raise InputError(f"layer {name!r} is unknown; use one of {', '.join(LAYERS)}")
        if name == "radius":
            return self.radius_map()
        if name == "mask":
            return self.mask
        shown = self.certified if name == "certified" else ~self.certified
        return shown.astype(np.uint8)


@dataclass(frozen=True, repr=False)
class IntervalCertificate(Certificate[IntervalClaim]):
    """The certificate of measurements; see :class:`Certificate`.

    What is certified is the *median under noise* of each measurement: that median is what must be deployed, with a
    confidence interval of its own (:meth:`certimed.SmoothedMeasurement.predict`).
    """

    @property
    def label(self) -> str:
        """The method, apart from its masks."""
        return f"{self.method}, measured"

    @property
    def radii(self) -> tuple[float, ...]:
        """The radii asked for, rising."""
        return self.claim.radii

    @property
    def intervals(self) -> dict[str, MeasuredInterval]:
        """By the name of the measurement."""
        return {one.name: one for one in self.claim.intervals}

    @property
    def level(self) -> float:
        """Failure probability of the last look: its part of ``share.level``."""
        from certimed.budgets.kinds import look_shares

        sizes = parse_budget(self.budget).value_looks()
        return look_shares(len(sizes), self.share.level)[len(self.samples.looks) - 1]

    def native_radius_at(self, radius: float) -> float | None:
        """One of the radii at native resolution, rounded down; None where the map is not known."""
        if self.space == NATIVE:
            return radius
        return (
            None if self.native is None else native_radius(self.about.placement.real_radius(radius), self.native.norm)
        )

    def interval(self, name: str, radius: float) -> tuple[float, float]:
        """Lower and upper end of a measurement at *any* radius from 0, also one that was chosen after looking.

        Guarantee: with probability at least ``1 - alpha`` the intervals of all measurements at all radii hold at once,
        by a simultaneous band of the distribution function (:func:`certimed.statistics.order.band`); at radius 0 this
        is a confidence interval of the median itself. It is a second statement from the same samples: it and the
        intervals at the radii asked for hold with probability ``1 - alpha`` each, ``1 - 2 alpha`` together.

        Raises:
            InputError: a measurement that is not here, or a radius below 0.
        """
        from certimed.budgets.values import end_level, ends_at

        if name not in self.intervals:
            raise InputError(f"there is no measurement {name!r:.80}; there are {', '.join(self.intervals)}")
        if not 0 <= radius < math.inf:
            raise InputError(f"radius={radius!r} must be a number of at least 0")
        own, share = self.intervals[name], self.law.probability(radius)
        level = end_level(self.level, len(self.claim.intervals), 1)
        place = None if share >= 1 else band_index(own.n, share, level, self.variation)
        return ends_at(own.ordered, own.n, place)


LAYERS = ("mask", "certified", "abstained", "radius")
AnyCertificate: TypeAlias = ClassCertificate | MaskCertificate | IntervalCertificate
_KINDS: dict[str, type[AnyCertificate]] = {
    ClassClaim.kind: ClassCertificate,
    MaskClaim.kind: MaskCertificate,
    IntervalClaim.kind: IntervalCertificate,
}


def certificate_of(claim: C, **parts: Any) -> Certificate[C]:
    """The certificate of a claim, of the class that serves its kind; ``parts`` are the other fields."""
    return _KINDS[claim.kind](claim=claim, **parts)  # type: ignore[arg-type,return-value]


def certificate_from_dict(data: object, arrays: str | Path | None = None) -> AnyCertificate:
    """Inverse of :meth:`Certificate.to_dict`.

    Args:
        data: the JSON object.
        arrays: the npz file of the claim's arrays, for kinds that have some.

    Raises:
        InputError: names the field that is missing or wrong, another schema, or arrays that do not belong.
    """
    fields = Fields(data, "certificate")
    fields.expect("schema", SCHEMA)
    kind = fields.string("kind")
    if kind not in CLAIMS:
        raise InputError(f"kind {kind!r:.40} of the certificate is unknown; it is one of {', '.join(CLAIMS)}")
    claim_fields = fields.mapping("claim")
    stored: Mapping[str, Any] = {}
    if names := CLAIMS[kind].array_names:
        if arrays is None:
            raise InputError(f"a certificate of kind {kind!r} has arrays; give their npz file")
        stored = read_arrays(Path(arrays), names)
    views, native = fields.get("views"), fields.get("native")
    chosen = fields.get("chosen_from")
    if not isinstance(chosen, list) or not all(isinstance(one, str) for one in chosen):
        raise InputError("field 'chosen_from' of the certificate must be a list of strings")
    if views is not None:
        if not (isinstance(views, list) and len(views) == 2):
            raise InputError("field 'views' of the certificate must be two noise levels or null")
        pair = Fields(dict(zip(("tuned", "classified"), views)), "views of the certificate")
        views = (pair.number("tuned"), pair.number("classified"))
    return _KINDS[kind](
        claim=CLAIMS[kind].from_fields(Fields(claim_fields, f"claim of kind {kind}"), stored),  # type: ignore[arg-type]
        law=law_from_dict(fields.mapping("law")),
        samples=Samples.from_fields(Fields(fields.get("samples"), "samples of the certificate")),
        share=Share.from_fields(Fields(fields.get("alpha"), "alpha of the certificate")),
        about=Circumstances(
            item=fields.string("item"),
            method=fields.string("method"),
            seed=fields.integer("seed"),
            shape=fields.integers("shape"),
            space=fields.string("space"),
            scope=fields.string("scope"),
            provenance=Provenance.from_dict(fields.mapping("provenance")),
            placement=_placement(Fields(fields.get("placement"), "placement of the certificate")),
            chosen_from=tuple(chosen),
            views=views,
            settings=VariedSettings.from_dict(fields.mapping("settings")) if fields.has("settings") else None,
        ),
        native=None if native is None else NativeRadius.from_fields(Fields(native, "native radius")),
    )


def _placement(fields: Fields) -> Placement:
    return Placement(fields.boolean("on_grid"), fields.number("rounding"), fields.number("slack"))


def load_certificate(path: str | Path) -> AnyCertificate:
    """Read what :meth:`Certificate.save` wrote, given the same path, with or without ``.json``.

    Raises:
        InputError: a file is missing or damaged, or the arrays are not those the JSON was written for.
    """
    stem = Path(path)
    stem = stem.with_suffix("") if stem.suffix == ".json" else stem
    text = stem.with_name(stem.name + ".json")
    if not text.is_file():
        raise InputError(f"there is no certificate {text}; give the path that it was saved under")
    fields = Fields.parse(text.read_text(encoding="utf-8"), "certificate")
    return certificate_from_dict(fields.data, stem.with_name(stem.name + ".npz"))
