"""What a run binds to each image in turn: a workflow whose settings noise is on, a box for a segmenter."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from certimed.data import Dataset, MedicalImage
from certimed.engine import FLOAT32, Engine, Stream
from certimed.errors import ImageError, InputError
from certimed.models.identity import behaviour_digest, combined
from certimed.noise.rounded import REACH
from certimed.runs.prepared import Prepared
from certimed.runs.prompted import Boxes, Prompting, boxed
from certimed.segmenters import PromptedSegmenter
from certimed.settings import Axis, BoundStream, Workflow, read_vary, spelt
from certimed.settings.kinds import OWN, PROMPT, SLICE
from certimed.settings.stream import Answer
from certimed.usercode import load_user_function

if TYPE_CHECKING:
    from certimed.runs.spec import RunSpec

TUNED_AT_X = ("zero-shot", "both", "per-sample", "split", "denoised")
"""Kinds of methods that work on noisy pixels, of which there are none where noise is on settings."""


@dataclass(frozen=True, eq=False)
class Binding:
    """What a run binds to each image: settings that noise is on, a box that a segmenter is given, or both.

    Attributes:
        axes: the settings; none where noise is on pixels.
        function: of one's own, where they name one.
        identity: of it.
        boxes: where the boxes of a promptable segmenter come from.
        network: the promptable segmenter.
    """

    axes: tuple[Axis, ...] = ()
    function: Any = None
    identity: str | None = None
    boxes: Boxes | None = None
    network: PromptedSegmenter | None = None

    @classmethod
    def of(cls, spec: RunSpec, model: Any, *, allow_code: bool) -> Binding | None:
        """What a request binds; None where a model needs nothing but its input.

        Raises:
            InputError: code without consent; a box or boxes for a model that takes none.
        """
        axes = read_vary(spec.vary) if spec.vary else ()
        prompted = isinstance(model, PromptedSegmenter)
        prompts = [axis.name for axis in axes if axis.kind.stage == PROMPT] + ["boxes"] * (spec.data.boxes is not None)
        if prompts and not prompted:
            raise InputError(f"{prompts[0]} is of segmenters that are given a box or click, and {spec.model} is none")
        if prompted and (spec.size is not None or spec.speed != FLOAT32):
            raise InputError(f"{spec.model} resizes images itself and runs in float32; leave size and speed out")
        parts: dict[str, Any] = {"boxes": Boxes.read(spec.data.boxes), "network": model} if prompted else {}
        own = [axis.name.partition("[")[0] for axis in axes if axis.kind.stage == OWN]
        if own:
            function = load_user_function(own[0], allow_code=allow_code)
            parts |= {"function": function, "identity": behaviour_digest(None, {"function": function}, state={})}
        return cls(axes, **parts) if axes or prompted else None

    def check(self, kinds: Sequence[str]) -> None:
        """Refuse methods that need noisy pixels, by an InputError."""
        for kind in kinds if self.axes else ():
            if kind in TUNED_AT_X:
                raise InputError(
                    f"method {kind} works on noisy pixels, and the noise is on settings; use plain, or prompts and "
                    "adapters that were learnt beforehand"
                )

    def stream(self, inner: Stream) -> BoundStream:
        """A network behind what is bound, not bound to an image yet."""
        boxes = None if self.boxes is None or self._prompts else self.boxes.digest
        return BoundStream(inner, list(spelt(self.axes)), self.identity, boxes)

    @property
    def _prompts(self) -> bool:
        """Whether the box or click itself is what noise is on."""
        return any(axis.kind.stage == PROMPT for axis in self.axes)

    def prepare(
        self, image: MedicalImage, engine: Engine, dataset: Dataset, truth: NDArray[np.int64] | None = None
    ) -> Prepared:
        """An image whose settings are what is certified, and the engine's streams bound to it.

        Raises:
            ImageError: the image does not have what a setting needs.
        """
        if self._prompts:
            assert self.boxes is not None and self.network is not None
            prompting = Prompting(self.axes, image, self.boxes.of(image), self.network, engine.device)
            return _prepared(prompting, engine, lambda inner: prompting.answer, truth)
        if any(axis.kind.stage == SLICE for axis in self.axes):
            image = _with_neighbours(image, dataset, self.axes)
        workflow = Workflow(self.axes, image, engine.device, self.function)
        box = self._boxed(image)

        def at(inner: Stream) -> Answer:
            network = inner if box is None else box
            return lambda u: _placed(workflow, network(workflow.images(u)), u)

        return _prepared(workflow, engine, at, truth)

    def with_box(self, prepared: Prepared, image: MedicalImage, engine: Engine) -> Prepared:
        """A prepared image, noise being on its pixels, with its box bound to the engine's streams."""
        box = self._boxed(image)
        assert self.boxes is not None and box is not None
        digest = combined(list(self.boxes.of(image)))
        return replace(prepared, streams={name: _at(one, box, digest) for name, one in engine.streams.items()})

    def _boxed(self, image: MedicalImage) -> Answer | None:
        if self.network is None or self.boxes is None:
            return None
        answer: Answer = boxed(self.network, self.boxes.of(image))
        return answer


def _prepared(
    bound: Workflow | Prompting, engine: Engine, at: Callable[[Stream], Answer], truth: NDArray[np.int64] | None
) -> Prepared:
    streams = {}
    for name, stream in engine.streams.items():
        assert isinstance(stream, BoundStream)
        streams[name] = stream.at(at(stream.inner), bound.digest)
    return Prepared(bound.start, None, truth, streams, bound.varied, bound.digest)


def _at(stream: Stream, answer: Answer, digest: str) -> BoundStream:
    assert isinstance(stream, BoundStream)
    return stream.at(answer, digest)


def _placed(workflow: Workflow, found: Tensor, u: Tensor) -> Tensor:
    """Masks are brought back to the raw image; scores of classes and embeddings stay."""
    return workflow.answers(found, u) if found.ndim > 2 else found


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
