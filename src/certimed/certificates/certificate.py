"""The certificate of one image: a claim, the noise law, the samples, the failure probability, the circumstances."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Generic, TypeVar

import numpy as np

from certimed.budgets import Stop
from certimed.certificates import words
from certimed.certificates.arrays import write_arrays
from certimed.certificates.circumstances import Circumstances, Samples, Share
from certimed.certificates.claims import Claim
from certimed.certificates.native import NativeRadius
from certimed.certificates.provenance import Provenance
from certimed.certificates.scope import NATIVE
from certimed.certificates.units import RadiusUnits, radius_units
from certimed.noise import NoiseLaw, sample_variation
from certimed.operators import Geometry

SCHEMA = "certimed/certificate/2"
TOO_FEW_SAMPLES = "too few samples"
UNSTABLE = "unstable under noise"

C = TypeVar("C", bound=Claim)


@dataclass(frozen=True)
class Certificate(Generic[C]):
    """What was proved about the smoothed model at one image.

    Guarantee: with probability at least ``1 - alpha`` over the noise that was drawn, the claim is right: the smoothed
    model's answer (the class; the class of every certified pixel, all at once; the interval that each median lies in)
    is the same for every perturbation ``d`` with ``||d||_2 < radius``, ``d`` living in ``space`` and the statement
    covering ``scope`` (Cohen et al., ICML 2019, Theorem 1; masks: SegCertify, Fischer et al., ICML 2021, with the
    family-wise error controlled; measurements: :mod:`certimed.statistics.order`). What is assumed of arithmetic depends
    on the noise law, see :mod:`certimed.noise`.

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
        self.claim.check(self.n0, self.n, self.about.answered)
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

    def statement(self, names: Sequence[str] = ()) -> str:
        """Exactly what was proved, in one paragraph.

        Args:
            names: of the classes, in the order of the scores; a class without one is called by its number.
        """
        return words.statement(self, names)

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
            **({} if about.settings is None else {"settings": about.settings.to_dict(self.real_radius)}),
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
