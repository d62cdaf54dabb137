"""How stored values became [0, 1], as data; the sentence for people is made from it, last."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from certimed.errors import InputError

if TYPE_CHECKING:
    from certimed.data.geometry import Geometry
    from certimed.data.images import MedicalImage

NARROW = 0.05
"""An image whose 1st to 99th percentile span less of [0, 1] is called narrow."""

_SAMPLE = 1 << 18

_PLACED = {
    "divided": "{what} divided by {top:.10g}",
    "bits": "1-bit values 0 and 1",
    "unit": "floating-point values in [0, 1] taken as they are",
    "window": "window centre {centre:g}, width {width:g} as asked for, clipped",
    "header_window": "window centre {centre:g}, width {width:g} from the header ({function}), clipped",
    "voi_table": "VOI table of the header applied",
    "full_range": "no window in the header: full range of the stored bits, {low:g} to {high:g}",
    "percentiles": "percentiles {first:g} and {last:g} of the volume ({low:g} to {high:g}) became 0 and 1, clipped",
}
_WORDS = _PLACED | {
    "rescaled": "rescaled by {slope:g} and {intercept:g}",
    "rescaled_each": "rescaled, each slice by its own numbers",
    "modality_table": "modality table applied",
    "inverted": "{why} inverted",
    "padding": "{pixels} padding pixels set to background (0)",
    "nan": "{pixels} values that are no number (NaN) read as {value:g} ({policy})",
    "palette": "palette colours looked up",
    "converted": "{source} converted to RGB{how}",
    "alpha_dropped": "alpha dropped ({kind} kept as stored, not blended)",
    "alpha_divided": "alpha divided out and dropped",
    "transparency_dropped": "transparency dropped",
    "samples_dropped": "{count} further samples a pixel dropped",
    "planes": "planes of the {axis} axis taken as red, green and blue",
    "turned": "turned upright by its EXIF orientation",
    "broken_exif": "unreadable EXIF block ignored",
    "slice": "{axis} slice {index} of {count} (RAS, counted from {start}; {side} at the left)",
    "volume": "the whole volume of {sides} voxels",
    "turned_to": "axes turned to {codes}",
    "frame": "frame {index} of {count}",
    "each_slice": "{axis} slice {index} of {count} (RAS, counted from {start}; {side} at the left)",
    "each_frame": "frame {index} of {count}",
    "series": "{count} further images of the file (thumbnail, label and the like) left out",
    "empty_tiles": "{count} empty tiles read as 0 (black)",
    "level": "level {index} of {count}",
    "region": "{width}x{height} pixels at ({x}, {y}) of level 0",
}


@dataclass(frozen=True)
class Step:
    """One step from stored values to [0, 1]: its kind, one of those this module knows, and its numbers."""

    kind: str
    values: Mapping[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        return _WORDS[self.kind].format(**self.values)


def step(kind: str, /, **values: Any) -> Step:
    """A step by its kind and numbers."""
    return Step(kind, values)


@dataclass(frozen=True, eq=False)
class Reading:
    """What a reader returns.

    Attributes:
        pixels: float32 ``(C, *space)`` in [0, 1].
        steps: how the stored values got there, in order.
        decoders: versions of the libraries that turned the file into numbers, by name.
        spacing: millimetres from pixel to pixel along each space axis, where the file says; else None.
        geometry: where the pixels lie in the patient, where the file says; else None.
        raw: float32 ``(C, *space)`` before the window, NaN at padding, where a window clips; else None.
        raw_unit: of ``raw``: ``"HU"``, or ``""`` where the file does not say.
    """

    pixels: NDArray[np.float32]
    steps: tuple[Step, ...]
    decoders: Mapping[str, str]
    spacing: tuple[float, ...] | None = None
    geometry: Geometry | None = None
    raw: NDArray[np.float32] | None = None
    raw_unit: str = ""


@dataclass(frozen=True)
class Intensity:
    """How one image's stored values became [0, 1], and what of [0, 1] they use.

    Attributes:
        steps: from stored values to [0, 1], in order.
        used: smallest and largest value.
        bulk: 1st and 99th percentile, without padding (of every n-th pixel in images of more than 2^18 values).
    """

    steps: tuple[Step, ...]
    used: tuple[float, float]
    bulk: tuple[float, float]

    @classmethod
    def of(cls, pixels: NDArray[np.float32], steps: Iterable[Step]) -> Intensity:
        """The record of an image."""
        steps = tuple(steps)
        sample = pixels.reshape(-1)[:: -(-pixels.size // _SAMPLE)]
        if any(step.kind == "padding" for step in steps) and sample.any():
            sample = sample[sample > 0]
        first, last = (float(value) for value in np.percentile(sample, (1, 99)))
        return cls(steps, (float(pixels.min()), float(pixels.max())), (first, last))

    @property
    def constant(self) -> bool:
        """Whether every value is the same."""
        return self.used[0] == self.used[1]

    @property
    def narrow(self) -> bool:
        """Whether the image is not constant and its bulk spans less than :data:`NARROW` of [0, 1]."""
        return not self.constant and self.bulk[1] - self.bulk[0] < NARROW

    @property
    def windowed(self) -> bool:
        """Whether a window asked for would place this image: never one of 8 bits or in colour."""
        divided = self.find("divided")
        return not (
            self.find("bits") or (divided and (divided.values["top"] <= 255 or "grey" not in divided.values["what"]))
        )

    def find(self, kind: str) -> Step | None:
        """The first step of this kind."""
        return next((step for step in self.steps if step.kind == kind), None)

    def to_json(self) -> dict[str, Any]:
        """The record in JSON's own types, for run records."""
        steps = [{"step": step.kind, **step.values} for step in self.steps]
        flags = [name for name in ("constant", "narrow") if getattr(self, name)]
        return {"steps": steps, "used": list(self.used), "bulk": list(self.bulk), "flags": flags}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Intensity:
        """The record that :meth:`to_json` wrote.

        Raises:
            InputError: it is no such record.
        """
        try:
            steps = tuple(Step(part["step"], {k: v for k, v in part.items() if k != "step"}) for part in data["steps"])
            (low, high), (first, last) = data["used"], data["bulk"]
            record = cls(steps, (float(low), float(high)), (float(first), float(last)))
            str(record)  # steps of unknown kinds or without their numbers cannot be said
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise InputError(f"this is no record of intensities as this version writes it: {error!r}") from None
        return record

    def __str__(self) -> str:
        return "; ".join(map(str, self.steps))


class IntensityReport:
    """One line on the intensities of a data set, and the warnings it calls for; fed as images are read.

    Args:
        images: images to begin with; records of more are added with :meth:`add`. Pixels are not kept.
    """

    def __init__(self, images: Iterable[MedicalImage] = ()) -> None:
        self._count = 0
        self._placed: Counter[str] = Counter()
        self._low, self._high = np.inf, -np.inf
        self._found: Counter[str] = Counter()
        self._examples: dict[str, str] = {}
        for image in images:
            self.add(image.id, image.intensity_record)

    def add(self, name: str, record: Intensity) -> None:
        """Take in the record of the image of this id."""
        self._count += 1
        self._placed.update(_placement(step) for step in record.steps if step.kind in _PLACED)
        self._low, self._high = min(self._low, record.used[0]), max(self._high, record.used[1])
        unplaced = record.find("full_range")
        if record.constant:
            self._note("constant", name)
        elif record.narrow:
            kind = "narrow" if record.windowed else "narrow_fixed"
            self._note(kind, f"{name}: {'no window in the header' if unplaced else record}")
        elif unplaced:
            self._note("full_range", name)
        for kind in _NOTED:
            found = record.find(kind)
            if found is not None and (kind, found.values.get("count")) != ("slice", 1):
                self._note(kind, f"{name}: {found}")

    @property
    def line(self) -> str:
        """How the images were placed and the range of [0, 1] they use, in one line."""
        if not self._count:
            return "no image was read"
        kinds = self._placed.most_common()
        placed = ", ".join(f"{kind}{f' ({number})' if len(kinds) > 1 else ''}" for kind, number in kinds)
        return f"{placed or 'intensities as given'}; {self._low:.3g} to {self._high:.3g} of [0, 1] used"

    @property
    def warnings(self) -> list[str]:
        """What a person should look at before trusting a result, worst first; each with a count and an example."""
        return [
            f"{found} of {self._count} images {one if found == 1 else many} {words.format(self._examples[kind])}"
            for kind, (one, many, words) in _WARNINGS.items()
            if (found := self._found[kind])
        ]

    def _note(self, kind: str, example: str) -> None:
        self._found[kind] += 1
        self._examples.setdefault(kind, example)


_WARNINGS = {
    "constant": (
        "is",
        "are",
        "constant (e.g. {}): all values are the same; leave it out, or correct its window",
    ),
    "narrow": ("uses", "use", f"less than {100 * NARROW:g} % of [0, 1] (e.g. {{}}); set --window CENTRE,WIDTH"),
    "narrow_fixed": (
        "uses",
        "use",
        f"less than {100 * NARROW:g} % of [0, 1] (e.g. {{}}); stretch the contrast beforehand",
    ),
    "full_range": (
        "has",
        "have",
        "no window in the header, so all of the stored bits' range became [0, 1] (e.g. {}); set --window CENTRE,WIDTH",
    ),
    "frame": ("comes", "come", "from a file with further frames, left out (e.g. {}); choose another with --frame"),
    "slice": ("is", "are", "one slice of a volume (e.g. {}); choose another with --axis and --slice"),
    "planes": ("has", "have", "three planes read as red, green and blue (e.g. {}): check that they are"),
    "series": ("comes", "come", "from a file with further images, left out (e.g. {})"),
    "empty_tiles": ("has", "have", "tiles without data, read as black (e.g. {})"),
    "padding": ("has", "have", "padding, set to background (e.g. {})"),
    "nan": ("holds", "hold", "values that are no number (e.g. {})"),
}
_NOTED = ("frame", "slice", "series", "planes", "empty_tiles", "padding", "nan")


def _placement(step: Step) -> str:
    """The step in words without the numbers that differ from image to image."""
    general = {"header_window": "windows of the headers", "full_range": "full range of the stored bits"}
    return "percentiles of each volume" if step.kind == "percentiles" else general.get(step.kind, str(step))
