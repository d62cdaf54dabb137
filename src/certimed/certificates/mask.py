"""The certificate of one segmented image or volume."""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from certimed.budgets import Look, PixelLooks
from certimed.certificates.cards import mask_card
from certimed.certificates.classification import TOO_FEW_SAMPLES, UNSTABLE
from certimed.certificates.fields import Fields
from certimed.certificates.looks import sampling_fields
from certimed.certificates.mask_files import (
    arrays_digest,
    read_arrays,
    smallest_unsigned,
    write_arrays,
    write_nifti,
    write_png,
)
from certimed.certificates.native import NativeRadius, native_fields, radius_at_native
from certimed.certificates.provenance import Provenance
from certimed.certificates.scope import END_TO_END, MODEL_INPUT, SCOPES, SPACES
from certimed.certificates.units import RadiusUnits, radius_units
from certimed.errors import InputError
from certimed.operators import Geometry
from certimed.statistics import CORRECTION_NAMES, radius_map_bonferroni

MASK_SCHEMA = "certimed/mask-certificate/1"
_FILE_LAYERS = ("mask", "certified", "radius")


@dataclass(frozen=True, eq=False, repr=False)
class MaskCertificate:
    """What was proved about the smoothed segmentation of one image.

    Guarantee: with probability at least ``1 - alpha`` over the noise that was drawn, *every* certified pixel keeps its
    class in ``mask`` under the smoothed segmenter for *every* perturbation with ``||d||_2 < radius``, all at once
    (Cohen et al., ICML 2019, Theorem 1 for each pixel; SegCertify, Fischer et al., ICML 2021, with the family-wise
    error controlled by Holm's or Bonferroni's test). Under ``correction="lehmann-romano"`` the same holds for all but
    at most ``k_fwer - 1`` certified pixels. Real arithmetic is assumed beyond the float64 statistics.

    Attributes:
        item: id of the image; with ``seed`` it is the key of the noise.
        mask: unsigned ``space``: candidate class of each pixel, chosen on the selection samples. It is certified only
            where ``certified`` is True; abstention is never a class id.
        agreement: unsigned ``space``: how many of the ``n`` estimation samples agree with ``mask``.
        threshold: smallest agreement that is certified, or None where no pixel is.
        num_classes: number of classes.
        n0, n: selection and estimation samples drawn.
        alpha: failure probability of this certificate.
        tau: probability that a certified pixel's class is shown to exceed under noise.
        correction: ``"holm"``, ``"bonferroni"`` or ``"lehmann-romano"``.
        k_fwer: the number of wrong pixels whose probability is bounded; 1 (none wrong) but for Lehmann-Romano.
        sigma: noise standard deviation in [0, 1] units of the certified space.
        radius: ``sigma * Phi^-1(tau)``, L2 in [0, 1] units, of every certified pixel.
        seed: the run's seed.
        shape: ``(C, *space)`` of the certified input.
        provenance: model identity, precision, device, versions.
        scope, space: what is covered, and where the radius lives; see :mod:`certimed.certificates.scope`.
        notes: further conditions of the statement, e.g. that alpha was shared with other taus.
        budget: spelling of the :class:`~certimed.budgets.PixelLooks` that chose ``n``; None: n was fixed beforehand.
        looks: under a budget, every look held; the last one, with its share of ``alpha``, gave ``threshold``.
        stopped: under a budget, why no more samples were drawn, in a sentence.
        native: the radius carried over to the image before it was resized, where that map is known.

    Raises:
        InputError: arrays and numbers that contradict each other.
    """

    item: str
    mask: NDArray[np.unsignedinteger[Any]]
    agreement: NDArray[np.unsignedinteger[Any]]
    threshold: int | None
    num_classes: int
    n0: int
    n: int
    alpha: float
    tau: float
    correction: str
    k_fwer: int
    sigma: float
    radius: float
    seed: int
    shape: tuple[int, ...]
    provenance: Provenance
    scope: str = END_TO_END
    space: str = MODEL_INPUT
    notes: tuple[str, ...] = field(default=())
    budget: str | None = None
    looks: tuple[Look, ...] = ()
    stopped: str | None = None
    native: NativeRadius | None = None

    def __post_init__(self) -> None:
        for name, largest in (("mask", self.num_classes - 1), ("agreement", self.n)):
            values = np.array(_whole(name, getattr(self, name)), dtype=smallest_unsigned(largest), order="C")
            values.setflags(write=False)
            object.__setattr__(self, name, values)
        self._check()

    def _check(self) -> None:
        if self.mask.shape != self.agreement.shape or self.mask.shape != tuple(self.shape[1:]):
            raise InputError(
                f"mask {self.mask.shape}, agreement {self.agreement.shape} and input {tuple(self.shape)} do not belong "
                "to one image"
            )
        if self.mask.size == 0 or int(self.mask.max()) >= self.num_classes or int(self.agreement.max()) > self.n:
            raise InputError(f"mask or agreement is empty or exceeds num_classes={self.num_classes} or n={self.n}")
        if self.correction not in CORRECTION_NAMES:
            raise InputError(f"correction={self.correction!r} is unknown; use one of {', '.join(CORRECTION_NAMES)}")
        if self.threshold is not None and not 1 <= self.threshold <= self.n:
            raise InputError(f"threshold={self.threshold} is no count of 1..n={self.n}")
        if self.scope not in SCOPES or self.space not in SPACES:
            raise InputError(f"scope {self.scope!r} or space {self.space!r} is unknown to this version of certimed")
        self._check_budget()
        if self.native is not None:
            self.native.check(self.radius, self.shape, self.space)

    def _check_budget(self) -> None:
        if self.budget is None:
            if self.looks or self.stopped is not None:
                raise InputError("looks and a reason to stop belong to a budget, and this mask certificate names none")
            return
        sizes = PixelLooks.parse(self.budget).sizes
        if not self.looks or self.stopped is None or tuple(look.n for look in self.looks) != sizes[: len(self.looks)]:
            raise InputError(f"the looks of this mask certificate are not those of its budget {self.budget!r:.80}")
        if (self.looks[-1].n, self.looks[-1].threshold) != (self.n, self.threshold):
            raise InputError(f"n={self.n}, threshold={self.threshold} of this mask certificate are not its last look's")
        if not 0 < self.level <= self.alpha:
            raise InputError(f"the last look's share {self.level} of alpha={self.alpha} is none")

    @property
    def level(self) -> float:
        """Failure probability spent on the counts: ``alpha``, or under a budget the last look's share of it."""
        return self.looks[-1].alpha if self.looks else self.alpha

    @cached_property
    def certified(self) -> NDArray[np.bool_]:
        """Boolean ``space``: where the class in ``mask`` is proved. Read-only."""
        certified = np.zeros(self.mask.shape, dtype=bool)
        if self.threshold is not None:
            np.greater_equal(self.agreement, self.threshold, out=certified)
        certified.setflags(write=False)
        return certified

    @property
    def pixels(self) -> int:
        """Number of pixels (voxels) tested."""
        return int(self.mask.size)

    @property
    def share_certified(self) -> float:
        """Share of pixels with a proved class, 0..1."""
        return float(np.count_nonzero(self.certified) / self.pixels)

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
        radii = radius_map_bonferroni(self.agreement, self.n, self.level, self.pixels, self.sigma)
        radii.setflags(write=False)
        return radii

    @property
    def native_radius(self) -> float | None:
        """L2 radius at native resolution: ``radius`` itself where the space is native, None where it is not known."""
        return radius_at_native(self)

    def with_geometry(self, geometry: Geometry | None) -> MaskCertificate:
        """This certificate with its radius at native resolution beside it; unchanged where the geometry is not known.

        Pixels stay those of the model's input: the statement is about the mask of that size.

        Raises:
            InputError: the geometry does not end at this certificate's input, or its space is native already.
        """
        return self if geometry is None else replace(self, native=NativeRadius.of(self.radius, geometry))

    def units(self) -> RadiusUnits:
        """The radius in grey levels, per-value RMS and L-infinity."""
        return radius_units(self.radius, self.shape)

    def statement(self) -> str:
        """Exactly what was proved, in one paragraph."""
        notes = self._sampling() + "".join(f" {note}" for note in self.notes)
        if self.threshold is None:
            return (
                f"Nothing was proved for {self.item}: no pixel's agreement over {self.n} noisy copies shows a "
                f"probability above {self.tau:g} once all {self.pixels} pixels are accounted for.{notes}"
            )
        count = int(np.count_nonzero(self.certified))
        tolerated = f", but for at most {self.k_fwer - 1} of them" if self.k_fwer > 1 else ""
        return (
            f"With probability at least {1 - self.alpha:.6g} over the noise drawn, all {count} certified pixels "
            f"({self.share_certified:.2%} of {self.pixels}) keep their class under the smoothed segmenter (Gaussian "
            f"noise, sigma {self.sigma:g}) for every perturbation of {self.item} with L2 norm below "
            f"{self.radius:.6g}{tolerated} ({self.correction}, all pixels at once). Space: {SPACES[self.space]}. "
            f"Scope: {SCOPES[self.scope]}.{'' if self.native is None else ' ' + self.native.statement()}{notes}"
        )

    def _sampling(self) -> str:
        """A sentence about the samples, unless their number was fixed."""
        if self.budget is None:
            return ""
        looks = "1 look" if len(self.looks) == 1 else f"{len(self.looks)} looks"
        return f" Samples: {self.n} after {looks} under budget {self.budget} ({self.stopped}); alpha covers all looks."

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types without the two arrays, whose digest stands in for them.

        ``budget``, ``looks`` and ``stopped`` stand there only where a budget chose n.
        """
        chosen = {"budget": self.budget, "looks": [look._asdict() for look in self.looks], "stopped": self.stopped}
        return {
            "schema": MASK_SCHEMA,
            "item": self.item,
            "share_certified": self.share_certified,
            "threshold": self.threshold,
            "num_classes": self.num_classes,
            "n0": self.n0,
            "n": self.n,
            "alpha": self.alpha,
            "tau": self.tau,
            "correction": self.correction,
            "k_fwer": self.k_fwer,
            "sigma": self.sigma,
            "radius": self.radius,
            "seed": self.seed,
            "shape": list(self.shape),
            "scope": self.scope,
            "space": self.space,
            "notes": list(self.notes),
            "provenance": self.provenance.to_dict(),
            "arrays_sha256": arrays_digest({"mask": self.mask, "agreement": self.agreement}),
            **(chosen if self.budget is not None else {}),
            **native_fields(self.native),
        }

    def to_json(self) -> str:
        """One line of JSON; floats keep every bit. The arrays go beside it, see :meth:`write_arrays`."""
        return json.dumps(self.to_dict(), allow_nan=False)

    def write_arrays(self, path: str | Path) -> None:
        """Write ``mask``, ``agreement`` and ``certified`` as a compressed npz without pickles."""
        write_arrays(Path(path), {"mask": self.mask, "agreement": self.agreement, "certified": self.certified})

    def save(self, path: str | Path) -> tuple[Path, Path]:
        """Write ``PATH.json`` and ``PATH.npz``; returns both paths. :meth:`load` is the inverse."""
        stem = Path(path)
        text, arrays = (stem.with_name(stem.name + ending) for ending in (".json", ".npz"))
        self.write_arrays(arrays)
        text.write_text(self.to_json() + "\n", encoding="utf-8")
        return text, arrays

    @classmethod
    def load(cls, path: str | Path) -> MaskCertificate:
        """Read what :meth:`save` wrote, given the same path.

        Raises:
            InputError: a file is missing or damaged, or the arrays are not those the JSON was written for.
        """
        stem = Path(path)
        text = stem.with_name(stem.name + ".json")
        if not text.is_file():
            raise InputError(f"there is no mask certificate {text}; give the path without its ending")
        return cls.from_json(text.read_text(encoding="utf-8"), stem.with_name(stem.name + ".npz"))

    @classmethod
    def from_json(cls, text: str, arrays: str | Path) -> MaskCertificate:
        """Inverse of :meth:`to_json` and :meth:`write_arrays`; ``arrays`` is the npz file."""
        return cls._from_fields(Fields.parse(text, "mask certificate"), Path(arrays))

    @classmethod
    def from_dict(cls, data: object, arrays: str | Path) -> MaskCertificate:
        """Inverse of :meth:`to_dict` and :meth:`write_arrays`; ``arrays`` is the npz file."""
        return cls._from_fields(Fields(data, "mask certificate"), Path(arrays))

    @classmethod
    def _from_fields(cls, fields: Fields, path: Path) -> MaskCertificate:
        fields.expect("schema", MASK_SCHEMA)
        notes = fields.get("notes")
        if not isinstance(notes, list) or not all(isinstance(note, str) for note in notes):
            raise InputError("field 'notes' of the mask certificate must be a list of strings")
        stored = read_arrays(path, ("mask", "agreement", "certified"))
        if arrays_digest({name: stored[name] for name in ("mask", "agreement")}) != fields.string("arrays_sha256"):
            raise InputError(f"{path} does not hold the arrays this mask certificate was written for; restore the file")
        certificate = cls(
            item=fields.string("item"),
            mask=stored["mask"],
            agreement=stored["agreement"],
            threshold=None if fields.get("threshold") is None else fields.integer("threshold"),
            num_classes=fields.integer("num_classes"),
            n0=fields.integer("n0"),
            n=fields.integer("n"),
            alpha=fields.number("alpha"),
            tau=fields.number("tau"),
            correction=fields.string("correction"),
            k_fwer=fields.integer("k_fwer"),
            sigma=fields.number("sigma"),
            radius=fields.number("radius"),
            seed=fields.integer("seed"),
            shape=fields.integers("shape"),
            provenance=Provenance.from_dict(fields.mapping("provenance")),
            scope=fields.string("scope"),
            space=fields.string("space"),
            notes=tuple(notes),
            **sampling_fields(fields),
            native=NativeRadius.from_fields(fields, "mask certificate"),
        )
        if not np.array_equal(certificate.certified, stored["certified"]):
            raise InputError(f"'certified' in {path} contradicts agreement and threshold; restore the file")
        return certificate

    def layer(self, name: str) -> NDArray[Any]:
        """``"mask"``, ``"certified"`` (0 or 1) or ``"radius"`` (the radius map) as an array of ``space``."""
        if name not in _FILE_LAYERS:
            raise InputError(f"layer {name!r} is unknown; use one of {', '.join(_FILE_LAYERS)}")
        if name == "radius":
            return self.radius_map()
        return self.mask if name == "mask" else self.certified.astype(np.uint8)

    def save_png(self, path: str | Path, layer: str = "mask") -> float:
        """Write one layer of a 2-D certificate as a PNG; returns what one step of its values stands for.

        ``"mask"``: palette image, pixel value = class id (16-bit grey above 256 classes). ``"certified"``: 0 or 255.
        ``"radius"``: 8-bit grey, rounded down; the returned radius per step is also in the file's text field
        ``certimed:unit``.

        Raises:
            InputError: an unknown layer, or a volume.
        """
        return write_png(Path(path), layer, self.layer(layer))

    def save_nifti(
        self, path: str | Path, layer: str = "mask", affine: NDArray[np.floating[Any]] | None = None
    ) -> None:
        """Write one layer as NIfTI (``.nii`` or ``.nii.gz``), axes ordered as in ``mask``; 2-D gets a third axis of 1.

        Args:
            path: the file.
            layer: ``"mask"``, ``"certified"`` or ``"radius"`` (float32, rounded down).
            affine: ``(4, 4)`` voxel-to-world matrix of the source image; identity if unknown.

        Raises:
            InputError: an unknown layer. MissingExtraError: nibabel is not installed.
        """
        write_nifti(Path(path), self.layer(layer), affine)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, MaskCertificate):
            return NotImplemented
        return self.to_dict() == other.to_dict()

    def __hash__(self) -> int:
        return hash((self.item, self.seed, self.tau, self.sigma, self.n))

    def __repr__(self) -> str:
        spent = f"n={self.n}" if self.budget is None else f"n={self.n} of {self.budget}"
        return (
            f"MaskCertificate({self.item!r}: {self.share_certified:.2%} of {self.pixels} pixels certified at radius "
            f"{self.radius:.4f} L2 = {self.units().rms_grey_levels:.3g} grey levels RMS"
            f"{'' if self.native is None else f' ({self.native.words})'}; {self.correction}, "
            f"tau={self.tau:g}, {spent}, alpha={self.alpha:g}, sigma={self.sigma:g}, {self.scope})"
        )

    def _repr_html_(self) -> str:
        return mask_card(self)


def _whole(name: str, values: Any) -> NDArray[Any]:
    array = np.asarray(values)
    if array.dtype.kind not in "iu" or (array.size and int(array.min()) < 0):
        raise InputError(f"{name} must hold whole numbers from 0, but has dtype {array.dtype}")
    if array.size and int(array.max()) > np.iinfo(np.uint32).max:
        raise InputError(f"{name} holds {int(array.max())}, which is no class id or count")
    return array
