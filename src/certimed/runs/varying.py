"""Runs in the space of a workflow's settings: what is varied, bound to each image in turn."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from certimed.data import Dataset, MedicalImage
from certimed.engine import Engine, Stream
from certimed.errors import ImageError, InputError
from certimed.models.identity import behaviour_digest
from certimed.noise.rounded import REACH
from certimed.runs.prepared import Prepared
from certimed.settings import Axis, SettingsStream, Workflow, read_vary, spelt
from certimed.settings.kinds import OWN, PROMPT, SLICE
from certimed.usercode import load_user_function

if TYPE_CHECKING:
    from certimed.runs.spec import RunSpec

FIXED_KINDS = ("plain", "few-shot", "pool")
"""Kinds of methods that do the same to every image; others tune themselves on noisy pixels, and here there are none."""


@dataclass(frozen=True, eq=False)
class Varying:
    """What a run varies.

    Attributes:
        axes: the settings.
        function: of one's own, where they name one.
        identity: of it.
    """

    axes: tuple[Axis, ...]
    function: Any = None
    identity: str | None = None

    @classmethod
    def of(cls, spec: RunSpec, *, allow_code: bool) -> Varying | None:
        """What a request varies; None where noise is on pixels. InputError for code without consent."""
        if not spec.vary:
            return None
        axes = read_vary(spec.vary)
        if prompts := [axis.name for axis in axes if axis.kind.stage == PROMPT]:
            raise InputError(f"{prompts[0]} is of segmenters that are given a box or click, and {spec.model} is none")
        own = [axis.name.partition("[")[0] for axis in axes if axis.kind.stage == OWN]
        if not own:
            return cls(axes)
        function = load_user_function(own[0], allow_code=allow_code)
        return cls(axes, function, behaviour_digest(None, {"function": function}, state={}))

    def check(self, kinds: Sequence[str]) -> None:
        """Refuse methods that need noisy pixels, by an InputError."""
        for kind in kinds:
            if kind not in FIXED_KINDS:
                raise InputError(
                    f"method {kind} works on noisy pixels, and the noise is on settings; use {', '.join(FIXED_KINDS)}"
                )

    def stream(self, inner: Stream) -> SettingsStream:
        """A network behind the workflow, not bound to an image yet."""
        return SettingsStream(inner, spelt(self.axes), self.identity)

    def prepare(
        self, image: MedicalImage, engine: Engine, dataset: Dataset, truth: NDArray[np.int64] | None = None
    ) -> Prepared:
        """An image whose settings are what is certified, and the engine's streams bound to it.

        Raises:
            ImageError: the image does not have what a setting needs.
        """
        if any(axis.kind.stage == SLICE for axis in self.axes):
            image = _with_neighbours(image, dataset, self.axes)
        workflow = Workflow(self.axes, image, engine.device, self.function)
        streams = {name: _bound(stream, workflow) for name, stream in engine.streams.items()}
        return Prepared(workflow.start, None, truth, streams, workflow.varied, workflow.digest)


def _bound(stream: Stream, workflow: Workflow) -> SettingsStream:
    assert isinstance(stream, SettingsStream)

    def answer(u: Tensor) -> Tensor:
        found = stream.inner(workflow.images(u))
        return workflow.answers(found, u) if found.ndim > 2 else found

    return stream.at(answer, workflow.digest)


def _with_neighbours(image: MedicalImage, dataset: Dataset, axes: Sequence[Axis]) -> MedicalImage:
    """The image with the raw values of the slices around it, ``(C, D, H, W)``, its own in the middle.

    As many as noise of the grid law can reach; beyond the ends of the volume its last slice goes on.
    """
    (axis,) = (one for one in axes if one.kind.stage == SLICE)
    known = [step for step in image.steps if step.kind == "slice"]
    if image.raw is None or not known:
        raise ImageError(f"{image.id} is no slice of a volume, and {axis.name} is varied; leave it out")
    index, count = known[0].values["index"], known[0].values["count"]
    reach = math.ceil(REACH * axis.scale)
    item = dataset.items[dataset.ids.index(image.id)]
    slices = []
    for place in range(index - reach, index + reach + 1):
        options = replace(dataset.options, slice=min(max(place, 0), count - 1))
        found = dataset.store.load(item, options).raw
        assert found is not None
        slices.append(found)
    return replace(image, raw=np.stack(slices, axis=1))
