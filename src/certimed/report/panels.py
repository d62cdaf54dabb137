"""Panels of a certified mask: what went in, what came out, what is proved."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from certimed.certificates import MaskCertificate
from certimed.errors import require
from certimed.noise import NoiseKey
from certimed.sampling import noisy_batches

# Okabe and Ito's palette: told apart by readers with any common form of colour blindness.
CLASS_COLOURS = ("#000000", "#E69F00", "#56B4E9", "#009E73", "#F0E442", "#0072B2", "#CC79A7")
_ABSTAINED = "#D55E00"


def mask_panel(
    path: Path,
    pixels: Tensor,
    truth: NDArray[np.int64] | None,
    certificates: Mapping[str, MaskCertificate],
    class_names: Sequence[str],
    *,
    denoiser: nn.Module | None = None,
    dpi: int = 110,
) -> None:
    """Draw one image: image, one noisy copy, the denoised copy, the truth; then for each method the certified mask with
    abstained pixels hatched, and the radius map.

    Args:
        path: PNG, PDF or SVG to write.
        pixels: float ``(C, H, W)`` in the certified space.
        truth: class ids ``(H, W)``, or None.
        certificates: by method, all at one sigma.
        denoiser: the denoiser for that sigma, or None.
    """
    require("matplotlib", "figures")
    from matplotlib.figure import Figure

    first = next(iter(certificates.values()))
    noisy = next(noisy_batches(pixels, first.sigma, NoiseKey(first.seed, first.item, "evaluation"), 1))
    top: list[tuple[str, Any]] = [("image", _grey(pixels)), (f"one noisy copy, sigma {first.sigma:g}", _grey(noisy[0]))]
    if denoiser is not None:
        with torch.inference_mode():
            top.append(("denoised in one step", _grey(denoiser(noisy)[0])))
    columns = max(len(top) + (truth is not None), 2 * len(certificates))
    figure = Figure(figsize=(2.3 * columns, 5.2), dpi=dpi, layout="constrained")
    axes = figure.subplots(2, columns, squeeze=False)
    for axis in axes.flat:
        axis.set_axis_off()
    for axis, (title, picture) in zip(axes[0], top):
        _show(axis, title, picture)
    if truth is not None:
        _show(axes[0, len(top)], "truth", _coloured(truth, pixels))
    for index, (method, certificate) in enumerate(certificates.items()):
        _certified(axes[1, 2 * index], method, certificate, pixels)
        _radius(figure, axes[1, 2 * index + 1], certificate)
    figure.legend(handles=_legend(class_names), loc="outside lower center", ncols=4, frameon=False, fontsize=8)
    figure.savefig(path)


def _show(axis: Any, title: str, picture: NDArray[Any]) -> None:
    axis.imshow(picture, cmap="gray" if picture.ndim == 2 else None, vmin=0, vmax=1, interpolation="nearest")
    axis.set_title(title, fontsize=8)


def _certified(axis: Any, method: str, certificate: MaskCertificate, pixels: Tensor) -> None:
    from matplotlib import rc_context

    abstained = ~certificate.certified
    picture = _coloured(np.where(abstained, 0, certificate.mask), pixels)
    _show(axis, f"{method}: certified, {100 * certificate.share_certified:.0f} %", picture)
    with rc_context({"hatch.color": _ABSTAINED, "hatch.linewidth": 0.6}):
        axis.contourf(abstained, levels=[0.5, 1.5], colors="none", hatches=["//////"])
    axis.contour(abstained, levels=[0.5], colors=_ABSTAINED, linewidths=0.5)


def _radius(figure: Any, axis: Any, certificate: MaskCertificate) -> None:
    shown = axis.imshow(certificate.radius_map(), cmap="viridis", vmin=0, interpolation="nearest")
    axis.set_title("radius of each pixel (L2)", fontsize=8)
    figure.colorbar(shown, ax=axis, fraction=0.046, pad=0.02).ax.tick_params(labelsize=6)


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
