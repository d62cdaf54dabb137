"""One line of ``certificates.jsonl``: what became of one image."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any, Protocol

from certimed.certificates import ClassCertificate
from certimed.certificates.fields import Fields
from certimed.errors import InputError
from certimed.integrity import strict_json

SCHEMA = "certimed/record/1"
CERTIFIED = "certified"
FAILED = "failed"


class Record(Protocol):
    """What a run folder needs of a line's content, whatever the task."""

    @property
    def item(self) -> str:
        """Id of the image."""

    @property
    def status(self) -> str:
        """``"certified"`` or ``"failed"``."""

    @property
    def reason(self) -> str | None:
        """Why it failed, else None."""

    @property
    def seconds(self) -> float:
        """Wall time spent on it."""

    def to_json(self) -> str:
        """The line, not yet sealed."""


@dataclass(frozen=True)
class ClassRecord:
    """One image of a classification run.

    Attributes:
        item: id of the image within the data set.
        status: ``"certified"`` (certificates were issued, abstentions included) or ``"failed"`` (no certificate).
        label: true class index, or None for unlabelled images.
        reason: why the image failed, else None.
        seconds: wall time spent on the image. It differs from run to run, so it is no part of the line, nor of
            equality: run folders keep it in ``timing.jsonl``.
        clean: class index each method's base model gives to the clean image.
        certificates: one certificate a method.
    """

    item: str
    status: str
    label: int | None = None
    reason: str | None = None
    seconds: float = field(default=0.0, compare=False)
    clean: dict[str, int] = field(default_factory=dict)
    certificates: dict[str, ClassCertificate] = field(default_factory=dict)

    def to_json(self) -> str:
        """One line of JSON, without ``seconds`` and not yet sealed."""
        return json.dumps(
            {
                "schema": SCHEMA,
                "item": self.item,
                "status": self.status,
                "label": self.label,
                "reason": self.reason,
                "clean": self.clean,
                "certificates": {name: cert.to_dict() for name, cert in self.certificates.items()},
            },
            allow_nan=False,
        )

    @classmethod
    def from_json(cls, text: str, seconds: float = 0.0) -> ClassRecord:
        """Inverse of :meth:`to_json`, sealed or not; raises InputError naming the field that is wrong."""
        fields = Fields(strict_json(text, "the record"), "record")
        fields.expect("schema", SCHEMA)
        status = fields.string("status")
        if status not in (CERTIFIED, FAILED):
            raise InputError(f"status {status!r:.40} of record {fields.string('item')!r:.80} is unknown")
        return cls(
            item=fields.string("item"),
            status=status,
            label=None if fields.get("label") is None else fields.integer("label"),
            reason=fields.optional_string("reason"),
            seconds=seconds,
            clean=_class_indices(fields.mapping("clean")),
            certificates={k: ClassCertificate.from_dict(v) for k, v in fields.mapping("certificates").items()},
        )


def _class_indices(data: dict[str, Any]) -> dict[str, int]:
    checked = Fields(data, "record's clean predictions")
    return {name: checked.integer(name) for name in data}
