"""A layer of a mask certificate as PNG."""

from __future__ import annotations

from pathlib import Path

from PIL.PngImagePlugin import PngInfo

from certimed.certificates import MaskCertificate
from certimed.certificates.pictures import layer_image


def write_png(path: str | Path, certificate: MaskCertificate, layer: str = "mask") -> float:
    """Write one layer of a 2-D mask as a grey or palette PNG, and what its values mean into its text.

    Args:
        path: of the file.
        layer: ``"mask"`` (class ids, in colours up to 256 classes), ``"certified"`` (255 or 0) or ``"radius"`` (steps
            of the largest radius / 255, rounded down, so that no pixel claims more than was proved).

    Returns:
        What one step of the file's values stands for: a radius, 1 for class ids.

    Raises:
        InputError: an unknown layer, or a volume.
    """
    image, unit, step = layer_image(layer, certificate.layer(layer))
    info = PngInfo()
    info.add_text("certimed:unit", unit)
    image.save(Path(path), format="PNG", pnginfo=info)
    return step
