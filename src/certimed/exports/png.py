"""A layer of a mask certificate as PNG."""

from __future__ import annotations

from pathlib import Path

from PIL.PngImagePlugin import PngInfo

from certimed.certificates import LAYERS, MaskCertificate
from certimed.certificates.pictures import layer_image
from certimed.errors import ImageError
from certimed.exports.each import Subject


def write_png(path: str | Path, certificate: MaskCertificate, layer: str = "mask") -> float:
    """Write one layer of a 2-D mask as a grey or palette PNG, and what its values mean into its text.

    Args:
        path: of the file.
        layer: ``"mask"`` (class ids, in colours up to 256 classes), ``"certified"`` and ``"abstained"`` (255 or 0) or
            ``"radius"`` (steps of the largest radius / 255, rounded down, so that no pixel claims more than was
            proved).

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


def write_layers(subject: Subject, base: Path) -> list[Path]:
    """All layers of one certificate, ``BASE.LAYER.png``; ImageError for a volume."""
    certificate = subject.certificate
    if certificate.mask.ndim != 2:
        raise ImageError(f"{certificate.item} is a volume, which a PNG does not hold; write --as nifti")
    files = []
    for layer in LAYERS:
        path = base.with_name(f"{base.name}.{layer}.png")
        write_png(path, certificate, layer)
        files.append(path)
    return files
