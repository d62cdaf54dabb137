"""The radius map of a mask certificate as a DICOM parametric map."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from certimed.errors import ImageError, require
from certimed.exports.dicom_codes import concept, private, tidy
from certimed.exports.dicom_source import build, placed, sources
from certimed.exports.each import Subject
from certimed.exports.narrowing import radii_as_float32

SERIES_NUMBER = 9102
QUANTITY = "Certified L2 radius, values in [0, 1]"


def write_pm(subjects: Sequence[Subject], base: Path, notes: list[str]) -> list[Path]:
    """``BASE.pm.dcm``: float32 on the frames of the source, rounded down, 0 where nothing is proved.

    Raises:
        ImageError: the image has no DICOM source, or one without a position in the patient, which the object needs.
    """
    hd = require("highdicom", "medical")
    parts = placed(subjects, notes)
    source = parts[0][0]
    item = source.subject.name
    if not source.headers[0].get("FrameOfReferenceUID"):
        raise ImageError(
            f"{item} was left out: its header has no frame of reference, which a parametric map must name; write --as "
            "nifti or png"
        )
    maps = [frames.layer(radii_as_float32(one.subject.certificate.radius_map())) for one, frames in parts]
    radii = np.concatenate(maps)
    top = float(radii.max())
    mapping = hd.pm.RealWorldValueMapping(
        lut_label="RADIUS",
        lut_explanation=tidy("radius of each pixel's certificate, rounded down"),
        unit=concept(("1", "UCUM", "no units")),
        value_range=(0.0, top),
        slope=1.0,
        intercept=0.0,
        quantity_definition=concept(private(QUANTITY)),
    )
    window = hd.VOILUTTransformation(window_center=top / 2, window_width=top or 1.0, voi_lut_function="LINEAR_EXACT")
    made = build(
        item,
        lambda: hd.pm.ParametricMap(
            **sources(parts),
            pixel_array=radii[..., None],
            contains_recognizable_visual_features=False,
            real_world_value_mappings=[[mapping]],
            voi_lut_transformations=[window],
            content_label="RADIUS_MAP",
            content_description=tidy(f"radius map, {source.subject.certificate.label}"),
            **source.common("radius map", SERIES_NUMBER),
            **source.device,
        ),
    )
    return [source.save(made, base.with_name(f"{base.name}.pm.dcm"), "radius map")]
