"""The certificate of one image: a claim, the noise law, the samples, the failure probability, the circumstances."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Any, Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from certimed.budgets import Betting, Stop, parse_budget
from certimed.certificates import words
from certimed.certificates.arrays import read_arrays, write_arrays
from certimed.certificates.claims import CLAIMS, Claim, ClassClaim, MaskClaim
from certimed.certificates.fields import Fields
from certimed.certificates.native import NativeRadius
from certimed.certificates.provenance import Provenance
from certimed.certificates.scope import END_TO_END, NATIVE, SCOPES, SPACES
from certimed.certificates.units import RadiusUnits, radius_units
from certimed.errors import InputError
from certimed.noise import NoiseLaw, Placement, law_from_dict, sample_variation
from certimed.operators import Geometry
from certimed.statistics import radius_map_bonferroni

SCHEMA = "certimed/certificate/2"
TOO_FEW_SAMPLES = "too few samples"
UNSTABLE = "unstable under noise"

C = TypeVar("C", bound=Claim)


@dataclass(frozen=True)
class Samples:
    """How the samples were drawn.

    Attributes:
        n0, n: selection and estimation samples.
        budget: how many estimation samples the image could get, as :func:`certimed.budgets.parse_budget` reads it; it
            says which test the counts were put to.
        looks: the integers of every look. Classes: samples, how many agree, the strongest rival's count. Masks:
            samples, and the smallest agreement that is certified (0: no pixel is).
        proved_at: number of the look, from 0, that the claim is of.
        stop: why no more samples were drawn.
    """

    n0: int
    n: int
    budget: str
    looks: tuple[tuple[int, ...], ...]
    proved_at: int
    stop: Stop

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types."""
        looks = [list(look) for look in self.looks]
        return {**asdict(self), "looks": looks, "stop": self.stop.to_dict()}

    @classmethod
    def from_fields(cls, fields: Fields) -> Samples:
        """Inverse of :meth:`to_dict`; InputError names the field that is wrong."""
        looks = fields.get("looks")
        if not isinstance(looks, list) or not looks:
            raise InputError("field 'looks' of the samples must be a list of one or more looks")
        stop = fields.mapping("stop")
        try:
            reason = Stop(**stop)
        except TypeError as error:
            raise InputError(f"field 'stop' of the samples does not have the documented fields: {error}") from error
        counts = tuple(Fields({"look": look}, "samples").integers("look") for look in looks)
        budget, proved_at = fields.string("budget"), fields.integer("proved_at")
        found = cls(fields.integer("n0"), fields.integer("n"), budget, counts, proved_at, reason)
        if str(parse_budget(budget)) != budget:
            raise InputError(f"budget {budget!r:.80} must be spelt {str(parse_budget(budget))!r}")
        seen = [0, *(look[0] if look else 0 for look in counts)]
        left = found.n - seen[-1]  # samples after the last look, where it was interrupted
        if (
            found.n0 < 1
            or any(b <= a for a, b in pairwise(seen))
            or left < 0
            or (left and reason.kind != "interrupted")
        ):
            raise InputError(f"n0={found.n0} and n={found.n} do not belong to looks at {seen[1:]} samples")
        if not 0 <= proved_at < len(counts):
            raise InputError(f"proved_at={proved_at} is none of the {len(counts)} looks")
        return found


@dataclass(frozen=True)
class Share:
    """Failure probability, and with what it is shared.

    Attributes:
        level: spent on this claim, all looks together.
        total: of all claims that share it, together.
        of: number of claims that share it.
        why: ``"alone"``, ``"taus"`` (several radii from the same samples) or ``"methods"`` (several models compared).
    """

    level: float
    total: float
    of: int = 1
    why: str = "alone"

    WHYS = ("alone", "taus", "methods")

    @classmethod
    def alone(cls, alpha: float) -> Share:
        """All of alpha for one claim."""
        return cls(float(alpha), float(alpha))

    @classmethod
    def from_fields(cls, fields: Fields) -> Share:
        """Read from JSON; InputError names the field that is wrong."""
        found = cls(fields.number("level"), fields.number("total"), fields.integer("of"), fields.string("why"))
        good = 0 < found.level <= found.total < 1 and found.of >= 1 and found.why in cls.WHYS
        if not good or (found.of == 1) != (found.why == "alone"):
            raise InputError(f"alpha {asdict(found)} is no share of a failure probability")
        return found


@dataclass(frozen=True)
class Circumstances:
    """About which image, by which model, in which space, with which randomness.

    Attributes:
        item: id of the image; with ``seed`` it is the key of the noise.
        method: name of the method within its run.
        seed: the run's seed.
        shape: ``(C, *space)`` of the certified input.
        space, scope: where the radius lives and what is covered; see :mod:`certimed.certificates.scope`.
        provenance: model identity, precision, device, versions.
        placement: where the image lies among those the noise law speaks of.
        chosen_from: names of the methods, or noise levels, among which this one was picked by looking at the image.
        views: noise of the view that is tuned on and of the view that is classified, where a sample consists of two.
    """

    item: str
    method: str
    seed: int
    shape: tuple[int, ...]
    space: str
    scope: str
    provenance: Provenance
    placement: Placement
    chosen_from: tuple[str, ...] = ()
    views: tuple[float, float] | None = None

    def check(self) -> None:
        """Raise InputError for words that are unknown, or a choice whose scope does not say so."""
        if self.scope not in SCOPES or self.space not in SPACES:
            raise InputError(f"scope {self.scope!r} or space {self.space!r} is unknown to this version of certimed")
        if self.chosen_from and self.scope == END_TO_END:
            raise InputError("a certificate that was chosen by looking at the image cannot be end-to-end")


@dataclass(frozen=True)
class Certificate(Generic[C]):
    """What was proved about the smoothed model at one image.

    Guarantee: with probability at least ``1 - alpha`` over the noise that was drawn, the claim is right: the smoothed
    model's answer (the class; the class of every certified pixel, all at once) is the same for every perturbation
    ``d`` with ``||d||_2 < radius``, ``d`` living in ``space`` and the statement covering ``scope`` (Cohen et al., ICML
    2019, Theorem 1; masks: SegCertify, Fischer et al., ICML 2021, with the family-wise error controlled). What is
    assumed of arithmetic depends on the noise law, see :mod:`certimed.noise`.

    Attributes:
        claim: what is claimed.
        law: the noise.
        samples: how the samples were drawn, with the integers the claim follows from.
        share: the failure probability and with what it is shared.
        about: the circumstances.
        native: the radius carried over to the image before it was prepared, where that map is known.
    """

    claim: C
    law: NoiseLaw
    samples: Samples
    share: Share
    about: Circumstances
    native: NativeRadius | None = None

    def __post_init__(self) -> None:
        self.about.check()
        self.claim.check(self.n0, self.n, self.shape)
        if self.native is not None:
            self.native.check(self.real_radius, self.shape, self.space)

    @property
    def item(self) -> str:
        """Id of the image."""
        return self.about.item

    @property
    def method(self) -> str:
        """Name of the method within its run."""
        return self.about.method

    @property
    def label(self) -> str:
        """What tells this certificate from the others of its image, for tables and dictionaries."""
        return self.method

    @property
    def radius(self) -> float:
        """L2 radius in [0, 1] units of the certified space; 0 where nothing is claimed."""
        return self.claim.radius

    @property
    def real_radius(self) -> float:
        """The part of the radius that holds for arbitrary real perturbations, on the law's grid or not."""
        return self.about.placement.real_radius(self.radius)

    @property
    def abstained(self) -> bool:
        """Whether nothing at all is claimed."""
        return self.claim.abstained

    @property
    def alpha(self) -> float:
        """Probability with which the statement fails: of one that was chosen, that of all it was chosen from."""
        return self.share.total if self.about.chosen_from else self.share.level

    @property
    def sigma(self) -> float:
        """Noise standard deviation in [0, 1] units of the certified space."""
        return self.law.sigma

    @property
    def n0(self) -> int:
        """Selection samples."""
        return self.samples.n0

    @property
    def n(self) -> int:
        """Estimation samples drawn."""
        return self.samples.n

    @property
    def budget(self) -> str:
        """Spelling of the budget."""
        return self.samples.budget

    @property
    def stop(self) -> Stop:
        """Why no more samples were drawn."""
        return self.samples.stop

    @property
    def seed(self) -> int:
        """The run's seed."""
        return self.about.seed

    @property
    def shape(self) -> tuple[int, ...]:
        """``(C, *space)`` of the certified input."""
        return self.about.shape

    @property
    def space(self) -> str:
        """Where the radius lives."""
        return self.about.space

    @property
    def scope(self) -> str:
        """What is covered."""
        return self.about.scope

    @property
    def provenance(self) -> Provenance:
        """Model identity, precision, device, versions."""
        return self.about.provenance

    @property
    def variation(self) -> float:
        """By how much a probability under the noise drawn can differ from the one under the exact law."""
        return sample_variation(self.law, int(np.prod(self.shape)), self.about.views)

    @property
    def native_radius(self) -> float | None:
        """L2 radius at native resolution: ``radius`` itself where the space is native, None where it is not known."""
        if self.space == NATIVE:
            return self.radius
        return None if self.native is None else self.native.radius

    def with_geometry(self: Own, geometry: Geometry | None) -> Own:
        """This certificate with its radius at native resolution beside it; unchanged where the geometry is not known.

        Raises:
            InputError: the geometry does not end at this certificate's input, or its space is native already.
        """
        return self if geometry is None else replace(self, native=NativeRadius.of(self.real_radius, geometry))

    def units(self) -> RadiusUnits:
        """The radius in grey levels, per-value RMS and L-infinity."""
        return radius_units(self.radius, self.shape)

    def statement(self) -> str:
        """Exactly what was proved, in one paragraph."""
        return words.statement(self)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types, the schema's name first. Arrays are represented by their digest."""
        about = self.about
        return {
            "schema": SCHEMA,
            "kind": self.claim.kind,
            "item": self.item,
            "method": self.method,
            "claim": self.claim.to_dict(),
            "law": self.law.to_dict(),
            "samples": self.samples.to_dict(),
            "alpha": asdict(self.share),
            "scope": about.scope,
            "chosen_from": list(about.chosen_from),
            "space": about.space,
            "seed": about.seed,
            "shape": list(about.shape),
            "placement": asdict(about.placement),
            "views": None if about.views is None else list(about.views),
            "provenance": about.provenance.to_dict(),
            "native": None if self.native is None else self.native.to_dict(),
        }

    def to_json(self) -> str:
        """One line of JSON; floats keep every bit. Arrays go beside it, see :meth:`write_arrays`."""
        return json.dumps(self.to_dict(), allow_nan=False)

    def write_arrays(self, path: str | Path) -> None:
        """Write the claim's arrays as a compressed npz without pickles; nothing where it has none."""
        if arrays := self.claim.arrays():
            write_arrays(Path(path), arrays)

    def save(self, path: str | Path) -> tuple[Path, ...]:
        """Write ``PATH.json``, and ``PATH.npz`` where the claim has arrays; :func:`load_certificate` is the inverse."""
        stem = Path(path)
        text, arrays = (stem.with_name(stem.name + ending) for ending in (".json", ".npz"))
        self.write_arrays(arrays)
        text.write_text(self.to_json() + "\n", encoding="utf-8")
        return (text, arrays) if self.claim.array_names else (text,)

    def __repr__(self) -> str:
        return words.short(self)

    def _repr_html_(self) -> str:
        return words.card(self)


Own = TypeVar("Own", bound=Certificate[Any])


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
        """``"mask"``, ``"certified"`` (0 or 1) or ``"radius"`` (the radius map) as an array of ``space``."""
        if name not in LAYERS:
            raise InputError(f"layer {name!r} is unknown; use one of {', '.join(LAYERS)}")
        if name == "radius":
            return self.radius_map()
        return self.mask if name == "mask" else self.certified.astype(np.uint8)


LAYERS = ("mask", "certified", "radius")
_KINDS: dict[str, type[ClassCertificate] | type[MaskCertificate]] = {
    ClassClaim.kind: ClassCertificate,
    MaskClaim.kind: MaskCertificate,
}


def certificate_of(claim: C, **parts: Any) -> Certificate[C]:
    """The certificate of a claim, of the class that serves its kind; ``parts`` are the other fields."""
    return _KINDS[claim.kind](claim=claim, **parts)  # type: ignore[arg-type,return-value]


def certificate_from_dict(data: object, arrays: str | Path | None = None) -> ClassCertificate | MaskCertificate:
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
        ),
        native=None if native is None else NativeRadius.from_fields(Fields(native, "native radius")),
    )


def _placement(fields: Fields) -> Placement:
    return Placement(fields.boolean("on_grid"), fields.number("rounding"), fields.number("slack"))


def load_certificate(path: str | Path) -> ClassCertificate | MaskCertificate:
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
