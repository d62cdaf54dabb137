"""One line of ``attacks.jsonl``: what became of the attacks on one certificate; perturbations lie beside it."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from certimed.attacks.goals import ABSTAINED, BROKEN, CLASS, DICE, KEPT, PIXEL, SET, Judged
from certimed.attacks.search import Trial
from certimed.attacks.spec import AttackSpec
from certimed.certificates.fields import Fields
from certimed.errors import InputError
from certimed.integrity import BROKEN_ARCHIVE, SETTINGS_DIGEST, digest, line_holds, seal_line, strict_json
from certimed.runs.folder import ATTACKS, PERTURBATIONS, RunFolder, append_whole

ATTACK_SCHEMA = "certimed/attack/1"


@dataclass(frozen=True)
class Attack:
    """What became of the attacks on one certificate.

    Attributes:
        item, method, label: which certificate; ``label`` tells it from the others of its image.
        spec: settings.
        radius, alpha, scope: the certificate's.
        reference: the certified class; of sets, the true class; of masks, how many pixels are certified.
        trials: in the order made.
        broken: number of the trial with the smallest perturbation that broke the answer, or None.
        base_norm: L2 norm of the smallest perturbation found that changes the base model's answer; 0 where its answer
            to the image without noise is another one; None where none was found within reach.
        dice: of masks with a truth: the guaranteed Dice of each class, and the base model's after an attack on it.
        perturbations: hex SHA-256 of each stored perturbation, by name (``"broken"``, ``"base"``).
    """

    item: str
    method: str
    label: str
    spec: AttackSpec
    radius: float
    alpha: float
    scope: str
    reference: int
    trials: tuple[Trial, ...]
    broken: int | None
    base_norm: float | None
    dice: dict[str, tuple[float, ...]]
    perturbations: dict[str, str]

    @property
    def key(self) -> tuple[str, str, str]:
        """What is done once: settings, image, certificate."""
        return digest(self.spec.to_dict()), self.item, self.label

    @property
    def broken_norm(self) -> float | None:
        """L2 norm of the smallest perturbation that broke the answer, or None."""
        return None if self.broken is None else self.trials[self.broken].norm

    @property
    def inside(self) -> bool:
        """Whether an attack succeeded inside the certified ball."""
        return self.broken_norm is not None and self.broken_norm < self.radius

    def unanswered_norm(self) -> float | None:
        """L2 norm of the smallest perturbation at which the answer was not given any more: abstained or broken."""
        norms = [one.norm for one in self.trials if one.goal != DICE and one.judged.status != KEPT]
        return min(norms, default=None)

    def reached(self) -> tuple[float, ...]:
        """Smallest Dice of each class reached inside the certified ball; empty where there is no truth."""
        rows = [one.judged.dice for one in self.trials if one.judged.dice and one.norm < self.radius]
        return tuple(min(values) for values in zip(*rows))

    def to_json(self) -> str:
        """One line of JSON, not yet sealed."""
        data = {
            "schema": ATTACK_SCHEMA,
            **{name: getattr(self, name) for name in ("item", "method", "label")},
            "settings": self.spec.to_dict(),
            **{name: getattr(self, name) for name in ("radius", "alpha", "scope", "reference")},
            "trials": [_trial_dict(one) for one in self.trials],
            **{name: getattr(self, name) for name in ("broken", "base_norm")},
            "dice": {name: _nulls(values) for name, values in self.dice.items()},
            "perturbations": self.perturbations,
        }
        return json.dumps(data, allow_nan=False)

    @classmethod
    def from_json(cls, text: str) -> Attack:
        """Inverse of :meth:`to_json`, sealed or not; InputError names the field that is wrong."""
        fields = Fields(strict_json(text, "the attack"), "attack")
        fields.expect("schema", ATTACK_SCHEMA)
        trials = fields.get("trials")
        if not isinstance(trials, list) or not trials:
            raise InputError("field 'trials' of the attack must be a list of one or more")
        broken = None if fields.get("broken") is None else fields.integer("broken")
        if broken is not None and not 0 <= broken < len(trials):
            raise InputError(f"field 'broken' of the attack names trial {broken} of {len(trials)}")
        return cls(
            **{name: fields.string(name) for name in ("item", "method", "label", "scope")},
            spec=AttackSpec.from_dict(fields.mapping("settings")),
            radius=fields.number("radius"),
            alpha=fields.number("alpha"),
            reference=fields.integer("reference"),
            trials=tuple(_trial(one) for one in trials),
            broken=broken,
            base_norm=fields.optional_number("base_norm"),
            dice={name: _numbers(values) for name, values in fields.mapping("dice").items()},
            perturbations=fields.strings("perturbations"),
        )


class AttackFile:
    """The attacks of a run folder: ``attacks.jsonl``, append-only, sealed to the run's settings.

    Args:
        folder: the run.
    """

    def __init__(self, folder: RunFolder) -> None:
        self.folder = folder
        self.path = folder.path / ATTACKS
        self._settings = str(folder.manifest.get(SETTINGS_DIGEST))

    def attacks(self) -> Iterator[Attack]:
        """All attacks, in the order written.

        Raises:
            InputError: names the first line that was changed after it was written, or is broken.
        """
        if not self.path.exists():
            return
        try:
            text = self.path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise InputError(f"{self.path} cannot be read: {error}") from error
        for number, line in enumerate(text.splitlines(), 1):
            if not line_holds(line, self._settings):
                raise InputError(
                    f"{self.path} line {number} was changed after it was written, or belongs to another run; "
                    "restore the file from a copy"
                )
            try:
                yield Attack.from_json(line)
            except InputError as error:
                raise InputError(f"{self.path} line {number}: {error}") from error

    def append(self, attack: Attack, perturbations: dict[str, NDArray[Any]]) -> None:
        """Write perturbations, then the line, and make it durable; InputError where the disk refuses."""
        try:
            if perturbations:
                path = self.array_path(attack)
                path.parent.mkdir(exist_ok=True)
                with path.open("wb") as stream:
                    np.savez_compressed(stream, allow_pickle=False, **perturbations)
            append_whole(self.path, [seal_line(attack.to_json(), self._settings)], durable=True)
        except OSError as error:
            raise InputError(f"{self.path} cannot be written ({error.strerror}); free some space") from error

    def perturbations(self, attack: Attack) -> dict[str, NDArray[Any]]:
        """The stored perturbations in the law's units; InputError where they are missing or were changed."""
        if not attack.perturbations:
            return {}
        path = self.array_path(attack)
        found = read_perturbations(path)
        if {name: array_digest(values) for name, values in found.items()} != attack.perturbations:
            raise InputError(f"{path} does not hold the perturbations of {attack.item!r:.80}; restore the file")
        return found

    def array_path(self, attack: Attack) -> Path:
        """Where the perturbations of an attack lie: computed, not read, so that no line names a file elsewhere."""
        return self.folder.path / PERTURBATIONS / f"{digest(list(attack.key))[:24]}.npz"


def read_perturbations(path: Path) -> dict[str, NDArray[Any]]:
    """All arrays of a file of perturbations; InputError where it cannot be read."""
    try:
        with np.load(path, allow_pickle=False) as stored:
            return {name: stored[name] for name in stored.files}
    except BROKEN_ARCHIVE as error:
        raise InputError(f"the perturbations {path} cannot be read ({error}); restore the file") from error


def array_digest(values: NDArray[Any]) -> str:
    """Hex SHA-256 of a perturbation: type, shape and values."""
    kind = "<i4" if values.dtype.kind == "i" else "<f8"
    found = hashlib.sha256(json.dumps([kind, list(values.shape)]).encode())
    found.update(np.ascontiguousarray(values, dtype=kind).tobytes())
    return found.hexdigest()


def _trial_dict(trial: Trial) -> dict[str, Any]:
    data = asdict(trial)
    data["judged"] |= {"counts": list(trial.judged.counts), "dice": _nulls(trial.judged.dice)}
    return data


def _trial(data: object) -> Trial:
    fields = Fields(data, "trial of an attack")
    inner = Fields(fields.mapping("judged"), "judgement of an attack")
    status, goal = inner.string("status"), fields.string("goal")
    if status not in (KEPT, ABSTAINED, BROKEN) or goal not in (CLASS, PIXEL, DICE, SET):
        raise InputError(f"status {status!r:.40} or goal {goal!r:.40} of an attack is unknown")
    judged = Judged(
        status,
        inner.integer("answer"),
        inner.optional_number("p_value"),
        inner.integers("counts"),
        inner.integer("start"),
        _numbers(inner.get("dice")),
    )
    return Trial(goal, fields.number("radius"), fields.number("norm"), judged)


def _nulls(values: tuple[float, ...]) -> list[float | None]:
    return [None if math.isnan(value) else value for value in values]


def _numbers(values: object) -> tuple[float, ...]:
    if not isinstance(values, list) or not all(value is None or isinstance(value, int | float) for value in values):
        raise InputError("Dice of an attack must be a list of numbers or nulls")
    return tuple(math.nan if value is None else float(value) for value in values)
