"""The pixels of one image packed for the page's viewer: one plane of a picture, three of a volume."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from certimed.certificates import MaskCertificate
from certimed.certificates.arrays import smallest_unsigned
from certimed.data import Geometry
from certimed.data.geometry import turned
from certimed.operators.placing import index_map
from certimed.report.html.pictures import Pixels, address, base_picture, packed
from certimed.report.profiles import Layers

SECTION = 2
_PICTURE = {"name": "", "fixed": None, "across": 1, "down": 0, "turned": [False, False], "letters": None}
# Radiologists look at a patient from the feet and from the front: his right is on their left.
_ANATOMICAL = (
    {"name": "Axial", "fixed": 2, "across": 0, "down": 1, "turned": [True, True], "letters": "RLAP"},
    {"name": "Coronal", "fixed": 1, "across": 0, "down": 2, "turned": [True, True], "letters": "RLSI"},
    {"name": "Sagittal", "fixed": 0, "across": 1, "down": 2, "turned": [True, True], "letters": "APSI"},
)
_STORED = tuple(
    {"name": name, "fixed": fixed, "across": across, "down": down, "turned": [False, False], "letters": None}
    for name, fixed, across, down in (("Third axis", 2, 1, 0), ("Second axis", 1, 2, 0), ("First axis", 0, 2, 1))
)
_THUMBNAIL = 176


def viewer_layers(
    certificates: Mapping[str, tuple[MaskCertificate, Layers]],
    pixels: Pixels | None,
    truth: NDArray[np.int64] | None,
    geometry: Geometry | None,
) -> dict[str, Any]:
    """What the viewer draws of one image.

    Axes of a volume whose place in the patient is known are turned to right, anterior, superior (nothing is
    interpolated), so that its planes can be named; its voxels are drawn as large as they are.

    Args:
        certificates: by short name, each with its radius map in ranks; all of one grid.
        pixels: ``(C, *space)`` of that grid, or None where the image is not there.
        truth: class ids ``space``, or None.
        geometry: where the *native* image lies, or None.

    Returns:
        plain JSON types: ``size`` (``space`` as certified), ``shape`` and ``spacing`` (as drawn), ``planes`` (which
        axes go across and down, and which is fixed), ``channels``, ``maps``; ``base`` and ``truth`` where they are
        known, of volumes ``thumb`` with ``base``.
    """
    first = next(iter(certificates.values()))[0]
    channels, *size = first.about.answered
    turn, spacing, planes = _drawn(first, geometry)
    found: dict[str, Any] = {
        "size": list(size),
        "shape": list(turn(first.mask).shape),
        "spacing": spacing,
        "planes": list(planes),
        "channels": channels,
        "maps": {key: _map(one, layers, turn) for key, (one, layers) in certificates.items()},
    }
    if truth is not None:
        found["truth"] = packed(turn(truth.astype(np.uint16)))
    if pixels is not None and len(size) == SECTION:
        found["base"] = base_picture(pixels)
    elif pixels is not None:
        grey = turn(np.rint(np.clip(pixels.mean(axis=0), 0, 1) * 255).astype(np.uint8))
        found |= {"base": packed(grey), "thumb": _thumbnail(grey, turn(first.mask), planes[0], spacing)}
    return found


def weight(layers: Mapping[str, Any]) -> int:
    """Bytes of the page that the layers take."""
    return sum(
        len(text)
        for text in (
            layers.get("base", ""),
            layers.get("truth", ""),
            *(one[name] for one in layers["maps"].values() for name in ("mask", "ranks")),
            layers.get("thumb", ""),
        )
    )


Turn = Callable[[NDArray[Any]], NDArray[Any]]


def _drawn(certificate: MaskCertificate, geometry: Geometry | None) -> tuple[Turn, list[float], tuple[Any, ...]]:
    """How arrays are turned to be drawn, the spacing of the turned axes, and the planes."""
    size = certificate.about.answered[1:]
    if len(size) == SECTION:
        return (lambda values: values), [1.0, 1.0], (_PICTURE,)
    native = certificate.native
    if geometry is None or (native is None and geometry.shape != size) or len(geometry.shape) != len(size):
        return (lambda values: values), [1.0] * len(size), _STORED
    affine = geometry.matrix if native is None else geometry.matrix @ index_map(native.geometry)
    _, standing = turned(np.empty(size, np.bool_), affine, "RAS")
    spacing = np.linalg.norm(standing[:3, :3], axis=0)
    return (lambda values: turned(values, affine, "RAS")[0]), [float(one) for one in spacing], _ANATOMICAL


def _map(certificate: MaskCertificate, layers: Layers, turn: Turn) -> dict[str, Any]:
    ranks = layers.ranks.astype(smallest_unsigned(len(layers.radii)))
    return {
        "mask": packed(turn(certificate.mask.astype(np.uint16))),
        "ranks": packed(turn(ranks)),
        "bytes": ranks.itemsize,
        "radii": [float(radius) for radius in layers.radii],
    }


def _thumbnail(grey: NDArray[np.uint8], mask: NDArray[Any], plane: Mapping[str, Any], spacing: list[float]) -> str:
    """A JPEG of the first plane's slice with most foreground, its pixels as large as they are."""
    fixed, across, down = plane["fixed"], plane["across"], plane["down"]
    index = int(np.count_nonzero(mask, axis=(across, down)).argmax())
    picture = np.moveaxis(grey, (down, across, fixed), (0, 1, 2))[:, :, index]
    picture = picture[:: -1 if plane["turned"][1] else 1, :: -1 if plane["turned"][0] else 1]
    wide, high = picture.shape[1] * spacing[across], picture.shape[0] * spacing[down]
    scale = _THUMBNAIL / max(wide, high)
    size = max(1, round(wide * scale)), max(1, round(high * scale))
    shown = Image.fromarray(np.ascontiguousarray(picture)).resize(size, Image.Resampling.LANCZOS)
    return address(shown, "JPEG", quality=82, optimize=True)
