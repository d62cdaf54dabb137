"""One line of a segmentation run: what became of one image; pixel arrays lie in files beside it."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from certimed.certificates import MaskCertificate
from certimed.certificates.fields import Fields
from certimed.errors import InputError
from certimed.integrity import strict_json
from certimed.metrics import MaskScores
from certimed.runs.records import CERTIFIED, FAILED

MASK_RECORD_SCHEMA = "certimed/mask-record/1"
ARRAYS = "arrays"


@dataclass(frozen=True)
class MaskRecord:
    """One image of a segmentation run.

    Attributes:
        item: id of the image within the data set.
        status: ``"certified"`` or ``"failed"``.
        group: patient or sequence, or None.
        reason: why the image failed, else None.
        seconds: wall time spent on the image; kept in ``timing.jsonl``, no part of the line nor of equality.
        certificates: one certificate a method.
        scores: scores against the truth by method; empty for images without a mask.
    """

    item: str
    status: str
    group: str | None = None
    reason: str | None = None
    seconds: float = field(default=0.0, compare=False)
    certificates: dict[str, MaskCertificate] = field(default_factory=dict)
    scores: dict[str, MaskScores] = field(default_factory=dict)

    def write_arrays(self, folder: Path) -> None:
        """Write the pixel arrays of every certificate; must come before the line is appended."""
        try:
            (folder / ARRAYS).mkdir(exist_ok=True)
            for method, certificate in self.certificates.items():
                certificate.write_arrays(folder / arrays_path(self.item, method))
        except OSError as error:
            raise InputError(f"{folder / ARRAYS} cannot be written ({error.strerror}); free some space") from error

    def to_json(self) -> str:
        """One line of JSON, without ``seconds`` and not yet sealed."""
        return json.dumps(
            {
                "schema": MASK_RECORD_SCHEMA,
                "item": self.item,
                "status": self.status,
                "group": self.group,
                "reason": self.reason,
                "certificates": {name: cert.to_dict() for name, cert in self.certificates.items()},
                "arrays": {name: arrays_path(self.item, name) for name in self.certificates},
                "scores": {name: scores.to_dict() for name, scores in self.scores.items()},
            },
            allow_nan=False,
        )

    @classmethod
    def from_json(cls, text: str, folder: Path, seconds: float = 0.0) -> MaskRecord:
        """Inverse of :meth:`to_json`; reads the arrays from the run folder.

        Raises:
            InputError: names the field that is wrong, or the arrays that are missing or changed.
        """
        fields = Fields(strict_json(text, "the mask record"), "mask record")
        fields.expect("schema", MASK_RECORD_SCHEMA)
        item, status = fields.string("item"), fields.string("status")
        if status not in (CERTIFIED, FAILED):
            raise InputError(f"status {status!r:.40} of mask record {item!r:.80} is unknown")
        # The path is computed, not read: a line must not be able to name a file outside the run folder.
        certificates = {
            name: MaskCertificate.from_dict(data, folder / arrays_path(item, name))
            for name, data in fields.mapping("certificates").items()
        }
        return cls(
            item=item,
            status=status,
            group=fields.optional_string("group"),
            reason=fields.optional_string("reason"),
            seconds=seconds,
            certificates=certificates,
            scores={name: _scores(data, certificates, name, item) for name, data in fields.mapping("scores").items()},
        )


def arrays_path(item: str, method: str) -> str:
    """Where the pixel arrays of one certificate lie, relative to the run folder: hashed, so any id is harmless."""
    digest = hashlib.sha256(json.dumps([item, method]).encode()).hexdigest()
    return f"{ARRAYS}/{digest[:24]}.npz"


def _scores(data: Any, certificates: dict[str, MaskCertificate], name: str, item: str) -> MaskScores:
    if name not in certificates:
        raise InputError(f"mask record {item!r:.80} has scores for {name!r:.40} and no certificate")
    return MaskScores.from_dict(data, certificates[name].alpha, certificates[name].k_fwer > 1)
