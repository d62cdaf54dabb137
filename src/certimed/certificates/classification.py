"""The certificate of one classified image."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field, replace
from statistics import NormalDist
from typing import Any

from certimed.budgets import Betting, Fixed, parse_budget
from certimed.certificates.cards import class_card
from certimed.certificates.fields import Fields
from certimed.certificates.native import NativeRadius, native_fields, radius_at_native
from certimed.certificates.provenance import Provenance
from certimed.certificates.scope import END_TO_END, MODEL_INPUT, SCOPES, SPACES
from certimed.certificates.units import RadiusUnits, radius_units
from certimed.errors import InputError
from certimed.operators import Geometry

SCHEMA = "certimed/class-certificate/1"
TOO_FEW_SAMPLES = "too few samples"
UNSTABLE = "unstable under noise"


@dataclass(frozen=True)
class ClassCertificate:
    """What was proved about the smoothed classifier at one image.

    Guarantee: unless ``abstained``, with probability at least ``1 - alpha`` over the noise that was drawn, the smoothed
    classifier ``g(x + d)`` equals ``prediction`` for every perturbation with ``||d||_2 < radius`` (Cohen et al., ICML
    2019, Theorem 1), ``d`` living in ``space`` and the statement covering ``scope``. Real arithmetic is assumed beyond
    the float64 statistics.

    Attributes:
        item: id of the image; with ``seed`` it is the key of the noise.
        prediction: class index chosen on the selection samples. A candidate only where ``abstained`` is True.
        abstained: True where nothing could be proved.
        radius: L2 in [0, 1] units of the certified space; 0 where abstained.
        p_lower: lower confidence bound on the probability of ``prediction`` under noise.
        q_upper: upper confidence bound on every other class's probability, or None for the one-sided bound.
        counts: estimation counts of all classes; they sum to ``n``.
        n0, n: selection and estimation samples drawn.
        budget: how many estimation samples the image could get, as :func:`certimed.budgets.parse_budget` reads it; it
            says which bound the counts were put to.
        looks: how often the counts were looked at.
        proved_at: counts at the look whose bound is recorded; with the budget they give ``p_lower`` again. Empty where
            abstained.
        stopped: why no more samples were drawn, in a sentence. What it says about a radius that was not reached is a
            forecast, and no part of the guarantee.
        alpha: failure probability of this certificate, all looks together.
        sigma: noise standard deviation in [0, 1] units of the certified space.
        bound: ``"one-sided"``, ``"two-sided"`` or ``"best"`` (both, each at alpha/2).
        scope, space: what is covered, and where the radius lives; see :mod:`certimed.certificates.scope`.
        seed: the run's seed.
        shape: ``(C, *space)`` of the certified input.
        provenance: model identity, precision, device, versions.
        notes: further conditions of the statement, e.g. a Bonferroni correction over methods.
        native: the radius carried over to the image before it was prepared, where that map is known.
    """

    item: str
    prediction: int
    abstained: bool
    radius: float
    p_lower: float
    q_upper: float | None
    counts: tuple[int, ...]
    n0: int
    n: int
    budget: str
    looks: int
    proved_at: tuple[int, ...]
    stopped: str
    alpha: float
    sigma: float
    bound: str
    seed: int
    shape: tuple[int, ...]
    provenance: Provenance
    scope: str = END_TO_END
    space: str = MODEL_INPUT
    notes: tuple[str, ...] = field(default=())
    native: NativeRadius | None = None

    @property
    def native_radius(self) -> float | None:
        """L2 radius at native resolution: ``radius`` itself where the space is native, None where it is not known."""
        return radius_at_native(self)

    def with_geometry(self, geometry: Geometry | None) -> ClassCertificate:
        """This certificate with its radius at native resolution beside it; unchanged where the geometry is not known.

        Raises:
            InputError: the geometry does not end at this certificate's input, or its space is native already.
        """
        if geometry is None:
            return self
        carried = replace(self, native=NativeRadius.of(self.radius, geometry))
        carried._check()
        return carried

    @property
    def stop(self) -> str:
        """Why the samples ended in a word or two: ``"answered"``, ``"futile"`` or ``"cap reached"``."""
        return self.stopped.partition(":")[0]

    @property
    def abstention(self) -> str | None:
        """Why nothing was proved: ``"too few samples"`` if the majority is there but not significant with the samples
        drawn (or, where the budget gave up early, with all it could have drawn), else ``"unstable under noise"``; None
        where something was proved. Under a betting budget the share that its radius needs takes the majority's place.
        """
        if not self.abstained:
            return None
        budget = parse_budget(self.budget)
        needed = NormalDist().cdf(budget.radius / self.sigma) if isinstance(budget, Betting) else 0.5
        return TOO_FEW_SAMPLES if self.counts[self.prediction] > needed * self.n else UNSTABLE

    def units(self) -> RadiusUnits:
        """The radius in grey levels, per-value RMS and L-infinity."""
        return radius_units(self.radius, self.shape)

    def statement(self) -> str:
        """Exactly what was proved, in one paragraph."""
        space = SPACES[self.space]
        if self.abstained:
            return (
                f"Nothing was proved for {self.item}: {self.abstention} "
                f"(class {self.prediction} won {self.counts[self.prediction]} of {self.n} noisy copies)."
                + self._stopping()
            )
        return (
            f"With probability at least {1 - self.alpha:.6g} over the noise drawn, the smoothed classifier "
            f"(Gaussian noise, sigma {self.sigma:g}) answers class {self.prediction} for every perturbation of "
            f"{self.item} with L2 norm below {self.radius:.6g}. Space: {space}. Scope: {SCOPES[self.scope]}."
            + ("" if self.native is None else f" {self.native.statement()}")
            + self._stopping()
            + "".join(f" {note}" for note in self.notes)
        )

    def _stopping(self) -> str:
        """A sentence about the samples, unless their number was fixed."""
        if isinstance(parse_budget(self.budget), Fixed):
            return ""
        return f" Samples: {self.n} under budget {self.budget} ({self.stopped}); alpha covers all {self.looks} looks."

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types, the schema's name first."""
        data = asdict(self)
        del data["native"]
        data["counts"] = list(self.counts)
        data["proved_at"] = list(self.proved_at)
        data["shape"] = list(self.shape)
        data["notes"] = list(self.notes)
        return {"schema": SCHEMA, **data, **native_fields(self.native)}

    def to_json(self) -> str:
        """One line of JSON; floats keep every bit."""
        return json.dumps(self.to_dict(), allow_nan=False)

    @classmethod
    def from_json(cls, text: str) -> ClassCertificate:
        """Inverse of :meth:`to_json`; raises InputError naming the field that is wrong."""
        return cls._from_fields(Fields.parse(text, "class certificate"))

    @classmethod
    def from_dict(cls, data: object) -> ClassCertificate:
        """Inverse of :meth:`to_dict`; raises InputError naming the field that is wrong."""
        return cls._from_fields(Fields(data, "class certificate"))

    @classmethod
    def _from_fields(cls, fields: Fields) -> ClassCertificate:
        fields.expect("schema", SCHEMA)
        notes = fields.get("notes")
        if not isinstance(notes, list) or not all(isinstance(note, str) for note in notes):
            raise InputError("field 'notes' of the class certificate must be a list of strings")
        certificate = cls(
            item=fields.string("item"),
            prediction=fields.integer("prediction"),
            abstained=fields.boolean("abstained"),
            radius=fields.number("radius"),
            p_lower=fields.number("p_lower"),
            q_upper=fields.optional_number("q_upper"),
            counts=fields.integers("counts"),
            n0=fields.integer("n0"),
            n=fields.integer("n"),
            budget=fields.string("budget"),
            looks=fields.integer("looks"),
            proved_at=fields.integers("proved_at"),
            stopped=fields.string("stopped"),
            alpha=fields.number("alpha"),
            sigma=fields.number("sigma"),
            bound=fields.string("bound"),
            seed=fields.integer("seed"),
            shape=fields.integers("shape"),
            provenance=Provenance.from_dict(fields.mapping("provenance")),
            scope=fields.string("scope"),
            space=fields.string("space"),
            notes=tuple(notes),
            native=NativeRadius.from_fields(fields, "class certificate"),
        )
        certificate._check()
        return certificate

    def _check(self) -> None:
        if not 0 <= self.prediction < len(self.counts):
            raise InputError(f"prediction {self.prediction} is no index into the {len(self.counts)} counts")
        if sum(self.counts) != self.n:
            raise InputError(f"the counts sum to {sum(self.counts)}, not to n={self.n}")
        if str(parse_budget(self.budget)) != self.budget:
            raise InputError(f"budget {self.budget!r:.80} must be spelt {str(parse_budget(self.budget))!r}")
        if bool(self.proved_at) == self.abstained:
            raise InputError("field 'proved_at' of the class certificate must be empty if, and only if, it abstained")
        if self.proved_at and (
            len(self.proved_at) != len(self.counts) or any(a > b for a, b in zip(self.proved_at, self.counts))
        ):
            raise InputError(f"proved_at={self.proved_at} must hold one number a class, none above that class's count")
        if self.scope not in SCOPES or self.space not in SPACES:
            raise InputError(f"scope {self.scope!r} or space {self.space!r} is unknown to this version of certimed")
        if self.native is not None:
            self.native.check(self.radius, self.shape, self.space)

    def __repr__(self) -> str:
        head = f"ClassCertificate({self.item!r}: "
        spent = f"n={self.n}" if self.budget == f"fixed:{self.n}" else f"n={self.n} of {self.budget}"
        if self.abstained:
            return f"{head}abstained, {self.abstention}; {spent}, alpha={self.alpha:g}, sigma={self.sigma:g})"
        native = "" if self.native is None else f" ({self.native.words})"
        return (
            f"{head}class {self.prediction}, radius {self.radius:.4f} L2 = {self.units().rms_grey_levels:.3g} grey "
            f"levels RMS{native}; p>={self.p_lower:.4f}, {spent}, alpha={self.alpha:g}, sigma={self.sigma:g}, "
            f"{self.scope})"
        )

    def _repr_html_(self) -> str:
        return class_card(self)
