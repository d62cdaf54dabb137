"""One line of ``certificates.jsonl``: what became of one image; arrays lie in files beside it."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from certimed.certificates import AnyCertificate, certificate_from_dict
from certimed.certificates.fields import Fields
from certimed.errors import InputError
from certimed.integrity import strict_json
from certimed.metrics import MaskScores

RECORD_SCHEMA = "certimed/record/2"
CERTIFIED = "certified"
FAILED = "failed"
ARRAYS = "arrays"


@dataclass(frozen=True)
class Record:
    """One image of a run.

    Attributes:
        item: id of the image within the data set.
        status: ``"certified"`` (certificates were issued, abstentions included) or ``"failed"`` (no certificate).
        reason: why the image failed, else None.
        label: true class index, or None.
        group: patient or sequence, or None.
        clean: class index that each method's base model gives to the clean image; empty for masks.
        certificates: by their ``label``: the method, and the tau where there are several; of measurements
            ``"METHOD, measured"``.
        intensity: how the image's stored values became [0, 1], see :class:`certimed.data.records.Intensity`; None where
            it could not be read.
        place: where the image's pixels lie in the patient, see :class:`certimed.data.Geometry`; None where its file
            does not say.
        scores: of masks, against the truth, by the certificate's ``label``; empty where there is no truth.
        seconds: wall time spent on the image. It differs from run to run, so it is no part of the line, nor of
            equality: run folders keep it in ``timing.jsonl``.
        checks: what the check of the base model saw at this image, by method; kept beside ``seconds``.
        clean_pixels: of masks, pixels of each class in the network's answer without noise; kept beside ``seconds``.
        structural: whether model or settings failed, not the image; known while a run goes on only.
    """

    item: str
    status: str
    reason: str | None = None
    label: int | None = None
    group: str | None = None
    clean: dict[str, int] = field(default_factory=dict)
    certificates: dict[str, Any] = field(default_factory=dict)
    place: dict[str, Any] | None = None
    scores: dict[str, MaskScores] = field(default_factory=dict)
    intensity: dict[str, Any] | None = None
    seconds: float = field(default=0.0, compare=False)
    checks: dict[str, Any] = field(default_factory=dict, compare=False)
    clean_pixels: tuple[int, ...] = field(default=(), compare=False)
    structural: bool = field(default=False, compare=False)

    @classmethod
    def failed(
        cls,
        item: str,
        reason: str,
        *,
        label: int | None = None,
        group: str | None = None,
        seconds: float = 0.0,
        structural: bool = False,
    ) -> Record:
        """The record of an image without certificates; its label is kept, as it counts as wrong for its class."""
        return cls(item, FAILED, reason, label, group, seconds=seconds, structural=structural)

    def write_arrays(self, folder: Path) -> None:
        """Write the arrays of every certificate that has some; must come before the line is appended."""
        for certificate in self.certificates.values():
            if not certificate.claim.arrays():
                continue
            path = folder / arrays_name(certificate.item, certificate.method, certificate.tau)
            try:
                path.parent.mkdir(exist_ok=True)
                certificate.write_arrays(path)
            except OSError as error:
                raise InputError(f"{path.parent} cannot be written ({error.strerror}); free some space") from error

    def to_json(self) -> str:
        """One line of JSON, without ``seconds`` and not yet sealed."""
        return json.dumps(
            {
                "schema": RECORD_SCHEMA,
                "item": self.item,
                "status": self.status,
                "reason": self.reason,
                "label": self.label,
                "group": self.group,
                "intensity": self.intensity,
                "place": self.place,
                "clean": self.clean,
                "certificates": [certificate.to_dict() for certificate in self.certificates.values()],
                "scores": {label: scores.to_dict() for label, scores in self.scores.items()},
            },
            allow_nan=False,
        )

    @classmethod
    def from_json(
        cls, text: str, folder: Path | None = None, seconds: float = 0.0, clean_pixels: tuple[int, ...] = ()
    ) -> Record:
        """Inverse of :meth:`to_json`, sealed or not; arrays are read from the run folder.

        Raises:
            InputError: names the field that is wrong, or the arrays that are missing or changed.
        """
        fields = Fields(strict_json(text, "the record"), "record")
        fields.expect("schema", RECORD_SCHEMA)
        item, status = fields.string("item"), fields.string("status")
        if status not in (CERTIFIED, FAILED):
            raise InputError(f"status {status!r:.40} of record {item!r:.80} is unknown")
        listed = fields.get("certificates")
        if not isinstance(listed, list):
            raise InputError(f"field 'certificates' of record {item!r:.80} must be a list")
        read = [_certificate(data, folder) for data in listed]
        certificates = {certificate.label: certificate for certificate in read}
        clean = Fields(fields.mapping("clean"), "record's clean predictions")
        return cls(
            item=item,
            status=status,
            reason=fields.optional_string("reason"),
            label=None if fields.get("label") is None else fields.integer("label"),
            group=fields.optional_string("group"),
            intensity=None if fields.get("intensity") is None else fields.mapping("intensity"),
            place=None if fields.get("place") is None else fields.mapping("place"),
            clean={name: clean.integer(name) for name in clean.data},
            certificates=certificates,
            scores={label: _scores(one, certificates, label, item) for label, one in fields.mapping("scores").items()},
            seconds=seconds,
            clean_pixels=clean_pixels,
        )


def arrays_name(item: str, method: str, tau: float) -> str:
    """Where the arrays of one certificate lie, relative to the run folder: hashed, so any id is harmless."""
    return f"{ARRAYS}/{hashlib.sha256(json.dumps([item, method, tau]).encode()).hexdigest()[:24]}.npz"


def _certificate(data: Any, folder: Path | None) -> AnyCertificate:
    fields = Fields(data, "certificate")
    claim = Fields(fields.mapping("claim"), "claim")
    path = None
    if folder is not None and claim.has("tau"):
        # The path is computed, not read: a line must not be able to name a file outside the run folder.
        path = folder / arrays_name(fields.string("item"), fields.string("method"), claim.number("tau"))
    return certificate_from_dict(data, path)


def _scores(data: Any, certificates: dict[str, Any], label: str, item: str) -> MaskScores:
    if label not in certificates:
        raise InputError(f"record {item!r:.80} has scores for {label!r:.40} and no certificate")
    return MaskScores.from_dict(data, certificates[label].alpha)
