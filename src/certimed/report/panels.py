"""Panels of a certified mask: what went in, what came out, what is proved."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from certimed.certificates import ClassCertificate, MaskCertificate, shown
from certimed.errors import InputError
from certimed.report.journal import WIDTHS, journal_style, new_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Okabe and Ito's palette: told apart by readers with any common form of colour blindness.
CLASS_COLOURS = ("#000000", "#E69F00", "#56B4E9", "#009E73", "#F0E442", "#0072B2", "#CC79A7")
_ABSTAINED = "#D55E00"
_MOST_LETTERS = 36
_SMALL = 5.5


@dataclass(frozen=True)
class MaskExample:
    """One image of a figure: ``pixels`` float ``(C, H, W)`` in the certified space, class ids ``(H, W)`` or None,
    certificates by label, and other pictures of the same shape by their titles, e.g. one noisy copy."""

    pixels: Tensor
    truth: NDArray[np.int64] | None
    certificates: Mapping[str, MaskCertificate]
    beside: Mapping[str, Tensor] = field(default_factory=dict)


def mask_figure(
    examples: Sequence[MaskExample], class_names: Sequence[str], *, width: float = WIDTHS["double"]
) -> Figure:
    """A row for each image: image, other pictures, truth where known, and for each label the certified mask (abstained
    pixels hatched) and the radius map, on one scale.

    Args:
        examples: of one list of classes, the same labels and the same other pictures.
        width: in millimetres.

    Raises:
        InputError: nothing to draw.
    """
    if not examples:
        raise InputError("there is nothing to draw: no image was found")
    first = examples[0]
    with_truth = any(example.truth is not None for example in examples)
    before = 1 + len(first.beside)
    columns = before + with_truth + 2 * len(first.certificates)
    largest = max(float(c.radius_map().max()) for example in examples for c in example.certificates.values()) or 1.0
    with journal_style():
        figure, axes = _grid(len(examples), columns, width, first.pixels.shape)
        for row, example in zip(axes, examples):
            for axis, (title, picture) in zip(row, {"image": example.pixels, **example.beside}.items()):
                _show(axis, title, _grey(picture))
            if example.truth is not None:
                _show(row[before], "truth", _coloured(example.truth, example.pixels))
            for index, label in enumerate(first.certificates):
                place, certificate = before + with_truth + 2 * index, example.certificates[label]
                _certified(row[place], label, certificate, example.pixels)
                drawn = row[place + 1].imshow(
                    certificate.radius_map(), cmap="viridis", vmin=0, vmax=largest, interpolation="nearest"
                )
                row[place + 1].set_title(f"{label}: radius", fontsize=_SMALL)
        figure.colorbar(drawn, ax=axes[:, -1], fraction=0.08, pad=0.03).ax.tick_params(labelsize=5)
        figure.legend(handles=_legend(class_names), loc="outside lower center", ncols=4, frameon=False)
    return figure


@dataclass(frozen=True)
class ImageExample:
    """One image of a figure: ``pixels`` float ``(C, H, W)``, its certificate, and what to call its classes."""

    pixels: Tensor
    certificate: ClassCertificate
    answer: str
    truth: str | None


def image_figure(examples: Sequence[ImageExample], *, width: float = WIDTHS["double"], columns: int = 5) -> Figure:
    """Images with the answer, the truth where known, and the radius; abstentions say so.

    Raises:
        InputError: nothing to draw.
    """
    if not examples:
        raise InputError("there is nothing to draw: no image was found")
    columns = min(columns, len(examples))
    with journal_style():
        figure, axes = _grid(-(-len(examples) // columns), columns, width, (1, 1, 1), room=9.0)
        for axis, example in zip(axes.flat, examples):
            c = example.certificate
            radius = f"r = {shown(c.radius, 'lower', places=3)}" if not c.abstained else f"abstained: {c.abstention}"
            if c.native is not None and not c.abstained:
                radius += f" (native {shown(c.native.radius, 'lower', places=3)})"
            wrong = example.truth is not None and example.truth != example.answer
            lines = [example.answer + (f", truly {example.truth}" if wrong else ""), radius]
            colour = _ABSTAINED if wrong or c.abstained else "black"
            _show(axis, "", _grey(example.pixels))
            words = "\n".join(line[:_MOST_LETTERS] for line in lines)
            axis.set_title(words, fontsize=_SMALL, color=colour, parse_math=False)
    return figure


def _grid(rows: int, columns: int, width: float, shape: Sequence[int], room: float = 6.0) -> tuple[Figure, Any]:
    """Axes for pictures of one shape, ``room`` millimetres above each for a title."""
    figure = new_figure(width, rows * (width / columns * shape[-2] / shape[-1] + room) + 10)
    axes = figure.subplots(rows, columns, squeeze=False)
    for axis in axes.flat:
        axis.set_axis_off()
    return figure, axes


def _show(axis: Any, title: str, picture: NDArray[Any]) -> None:
    axis.imshow(picture, cmap="gray" if picture.ndim == 2 else None, vmin=0, vmax=1, interpolation="nearest")
    axis.set_title(title, fontsize=_SMALL, parse_math=False)


def _certified(axis: Any, method: str, certificate: MaskCertificate, pixels: Tensor) -> None:
    from matplotlib import rc_context

    abstained, share = ~certificate.certified, shown(certificate.share_certified, "lower", places=0, scale=100)
    picture = _coloured(np.where(abstained, 0, certificate.mask), pixels)
    _show(axis, f"{method}: certified, {share} %", picture)
    with rc_context({"hatch.color": _ABSTAINED, "hatch.linewidth": 0.6}):
        axis.contourf(abstained, levels=[0.5, 1.5], colors="none", hatches=["//////"])
    axis.contour(abstained, levels=[0.5], colors=_ABSTAINED, linewidths=0.5)


def _grey(image: Tensor) -> NDArray[np.float32]:
    values = image.clamp(0, 1).cpu().numpy()
    return np.asarray(values[0] if values.shape[0] == 1 else values.transpose(1, 2, 0))


def _coloured(mask: NDArray[Any], pixels: Tensor, opacity: float = 0.55) -> NDArray[np.float64]:
    """Class colours over the image; class 0, the background, stays clear."""
    base = pixels.clamp(0, 1).cpu().numpy().mean(axis=0)
    picture = np.repeat(base[:, :, None], 3, axis=2).astype(np.float64)
    for index in range(1, int(mask.max()) + 1):
        colour = np.array([int(_colour(index)[i : i + 2], 16) / 255 for i in (1, 3, 5)])
        inside = mask == index
        picture[inside] = (1 - opacity) * picture[inside] + opacity * colour
    return picture


def _colour(index: int) -> str:
    return CLASS_COLOURS[1 + (index - 1) % (len(CLASS_COLOURS) - 1)]


def _legend(class_names: Sequence[str]) -> list[Any]:
    from matplotlib.patches import Patch

    named = [Patch(color=_colour(i), label=name) for i, name in enumerate(class_names) if i]
    return [*named, Patch(facecolor="white", edgecolor=_ABSTAINED, hatch="//////", label="abstained")]
