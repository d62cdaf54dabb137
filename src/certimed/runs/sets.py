"""The job of a run that certifies sets: what a calibration asks of model, settings and test images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from torch import nn

from certimed.data import Dataset, MedicalImage
from certimed.engine import Engine
from certimed.errors import ImageError
from certimed.noise import content_id
from certimed.runs.calibration import Calibration
from certimed.runs.job import ClassJob
from certimed.runs.methods import Prompting
from certimed.runs.prepared import Prepared
from certimed.targets import Sets

if TYPE_CHECKING:
    from certimed.runs.spec import RunSpec


class SetJob(ClassJob):
    """Sets of classes, by a calibration; a calibration image, or one of its groups, is refused as a test image."""

    def __init__(
        self,
        spec: RunSpec,
        dataset: Dataset,
        class_names: Sequence[str],
        engine: Engine,
        model: Any,
        denoiser: nn.Module | None,
        prompting: Prompting,
        *,
        calibration: Calibration,
    ) -> None:
        given = calibration
        target = Sets(len(class_names), given.score, given.radii, given.thresholds, given.digest, given.variation)
        super().__init__(spec, dataset, class_names, engine, target, model, denoiser, prompting)
        given.check_run(spec.to_dict(), [asdict(one) for one in self.entries], self.class_names)
        self.calibration = given

    def prepare(self, image: MedicalImage) -> Prepared:
        """See :class:`ClassJob`."""
        found = super().prepare(image)
        refuse_known(self.calibration, image, found)
        return found

    def manifest(self, data: Mapping[str, Any]) -> dict[str, Any]:
        """See :class:`Job`; the calibration goes with the run, so that whoever checks it needs no other file."""
        return {**super().manifest(data), "calibration": self.calibration.to_dict()}


def refuse_known(calibration: Calibration, image: MedicalImage, prepared: Prepared) -> None:
    """Raise ImageError for an image that was calibrated on, or of a group that was."""
    if content_id(prepared.pixels) in calibration.content_set:
        raise ImageError(f"{image.id} was a calibration image; a test image must not be")
    if calibration.groups and calibration.group_of(image.id, image.group) in calibration.groups:
        raise ImageError(
            f"{image.id} is of a group (patient, sequence) that was calibrated on; a test image must not be"
        )
