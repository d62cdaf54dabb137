"""Networks that others trained and published, certified as they are.

    python -m benchmarks.study_published --case retina --sources ../shared/models --data ../shared/data
    python -m benchmarks.study_published --report docs/published-models.md

Every case is a network's published weights in a folder of ``--sources``, with the lines that rebuild its
architecture; the weights are not part of this project (their sources and licences are named on the page). A stopped
case goes on where it was.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from benchmarks.home import ROOT, places_parser, replace_section, table, write_result
from benchmarks.study_measurements import TAU, cells, outcome
from certimed.data import DEFAULT_READ, ReadOptions
from certimed.engine import DENOISED, PLAIN, Acceleration
from certimed.errors import InputError
from certimed.runs import DataSpec, MeasureTarget, RunSpec
from certimed.statistics import radius_from_lower
from certimed.studies import run_study

MARKER = "published models"
SIDE = 128


@dataclass(frozen=True)
class Case:
    """One published network on one set.

    Attributes:
        title: of its part of the page.
        folder, factory: where its code and weights are, and what builds it: ``MODULE:FUNCTION``.
        source: who published it, and the licence.
        images: writes the images and masks below a folder, from the data folder.
        classes: of the masks.
        measurements: spellings.
        sigmas: noise levels.
        denoisers: by sigma, a function here: a published denoiser trained at about that noise, in front.
        about: what was certified.
        reading: how the images are read.
        said: what a user of that network should know.
    """

    title: str
    folder: str
    factory: str
    source: str
    images: Callable[[Path, Path], None]
    classes: tuple[str, ...]
    measurements: tuple[str, ...]
    sigmas: tuple[float, ...]
    denoisers: dict[float, str]
    about: str
    said: str
    reading: ReadOptions = DEFAULT_READ


def retina_images(data: Path, out: Path) -> None:
    """The central square of each of the 20 DRIVE test images, grey, with its vessels."""
    with np.load(data / "seg_retina_drive.npz", allow_pickle=False) as content:
        images, masks, names = content["images"], content["masks"], content["files"]
    top, left = (images.shape[1] - SIDE) // 2, (images.shape[2] - SIDE) // 2
    for kind, arrays in (("images", images), ("masks", masks)):
        (out / kind).mkdir(parents=True, exist_ok=True)
        for name, pixels in zip(names, arrays, strict=True):
            crop = pixels[top : top + SIDE, left : left + SIDE]
            Image.fromarray(crop).save(out / kind / f"{Path(str(name)).stem}.png")


def brain(data: Path, out: Path) -> None:
    """The MNI152 template at 1 mm, cut to the head, with white and grey matter where its own tissue maps exceed 1/2."""
    import nibabel
    from nilearn import datasets

    head = datasets.load_mni152_template(resolution=1)
    white, grey = datasets.load_mni152_wm_template(resolution=1), datasets.load_mni152_gm_template(resolution=1)
    tissue = np.zeros(head.shape, dtype=np.uint8)
    for index, part in ((1, white), (2, grey)):
        tissue[np.asarray(part.dataobj) > 0.5] = index
    inside = np.argwhere(np.asarray(head.dataobj) > 0)
    cut = tuple(slice(low, high + 1) for low, high in zip(inside.min(0), inside.max(0), strict=True))
    for kind, values in (("images", np.asarray(head.dataobj, dtype=np.float32)), ("masks", tissue)):
        (out / kind).mkdir(parents=True, exist_ok=True)
        affine = head.affine.copy()
        affine[:3, 3] += head.affine[:3, :3] @ inside.min(0)
        nibabel.save(nibabel.Nifti1Image(values[cut], affine), out / kind / "mni152.nii.gz")


def medium() -> Any:
    """DnCNN of 17 layers trained at sigma .10."""
    import dncnn  # of --sources

    return dncnn.load("scico-17M")


_VESSELS = ("background", "vessel")
CASES = {
    "retina": Case(
        "Retinal vessels, U-Net (orobix/retina-unet)",
        "retina_unet",
        "retina_unet:build",
        "github.com/orobix/retina-unet at f6ff63b, MIT licence; 471 000 weights",
        retina_images,
        _VESSELS,
        ("area:vessel", "count:vessel"),
        (0.02, 0.05, 0.1),
        {0.1: "medium"},
        "The central 128 x 128 pixels of the 20 DRIVE test images, grey after CLAHE and gamma.",
        "At sigma .1 nearly all pixels are certified and hardly a vessel: what is stable is the background. "
        "Behind the denoiser some vessels come back; thin ones are lost either way. The number of connected vessels "
        "moves by a third or more even at sigma .02: do not report it from this network. Its Dice in the centre of the "
        "image is lower than over the whole image (.82).",
    ),
    "lwnet": Case(
        "Retinal vessels, Little W-Net (agaldran/lwnet)",
        "lwnet",
        "lwnet:vessels",
        "github.com/agaldran/lwnet at ce72dda, MIT licence; 68 000 weights",
        retina_images,
        _VESSELS,
        ("area:vessel", "count:vessel"),
        (0.02, 0.05, 0.1),
        {},
        "The central 128 x 128 pixels of the 20 DRIVE test images, grey after CLAHE and gamma.",
        "It was trained on colour images; here it sees grey ones, repeated as three channels: its clean Dice is low, "
        "and the figures say nothing of its own domain. Away from it, noise makes the network answer vessel for most "
        "pixels: the median area under noise is many times the true one, with a narrow interval. Narrow is no "
        "sign of right.",
    ),
}

_TISSUE = ("background", "white matter", "grey matter")
_ABOUT_BRAIN = (
    "One volume, the MNI152 template at 1 mm cut to the head; tau, alpha and Holm's correction for all its voxels."
)
_SAID_BRAIN = (
    "The template is the mean of many heads and smoother than any of them, and its own tissue maps are the truth "
    "here: a single patient's image is harder."
)
for _name, _factory, _size, _percentiles, _sigmas in (
    ("brain5", "tissue_fast", "5 600", (0.0, 100.0), (0.02, 0.05)),
    ("brain11", "tissue_11", "23 000", (0.0, 100.0), (0.05,)),
    ("brain20", "tissue_20", "87 000", (5.0, 95.0), (0.05,)),
):
    CASES[_name] = Case(
        f"Brain tissue in 3-D, MeshNet {_factory} (neuroneural/brainchop)",
        "brainchop",
        f"meshnet:{_factory}",
        f"github.com/neuroneural/brainchop at 4c87885, MIT licence; {_size} weights",
        brain,
        _TISSUE,
        ("volume:white matter", "volume:grey matter"),
        _sigmas,
        {},
        _ABOUT_BRAIN,
        _SAID_BRAIN,
        ReadOptions(volume=True, orientation="LIA", percentiles=_percentiles),
    )


def certify(case: Case, name: str, given: argparse.Namespace) -> dict[str, Any]:
    """Certify one case at every sigma, measurements and masks from the same copies; then what it amounts to."""
    for folder in (case.folder, "dncnn"):
        sys.path.append(str((given.sources / folder).resolve()))
    work = (given.models / "published" / name).resolve()
    case.images(given.data, work / "data")
    data = DataSpec(
        str(work / "data" / "images"),
        case.classes,
        masks=str(work / "data" / "masks"),
        limit=given.images,
        reading=case.reading,
    )
    specs = {}
    for sigma in case.sigmas:
        denoiser = case.denoisers.get(sigma)
        specs[f"sigma-{sigma:g}"] = RunSpec(
            f"python:{case.factory}",
            data,
            MeasureTarget(case.measurements, (float(radius_from_lower(TAU, sigma)),), taus=(TAU,)),
            methods=(PLAIN,) if denoiser is None else (PLAIN, DENOISED),
            sigma=sigma,
            budget=given.n,
            seed=given.seed,
            denoiser=None if denoiser is None else f"python:benchmarks.study_published:{denoiser}",
            speed=Acceleration("bfloat16"),
        )
    study = run_study(specs, work / "runs", allow_code=True)
    return {
        "case": name,
        "images": study.series[0].images,
        "failed": study.failed,
        "n": given.n,
        "seed": given.seed,
        "sigmas": {f"{sigma:g}": outcome(study, sigma, case.classes) for sigma in case.sigmas},
    }


_INTRODUCTION = """Networks that others trained and published, without any thought of noise, certified as they are:
masks and measurements from the same n = {n} noisy copies (n0 = 10), alpha = .001 each, tau = .75,
Holm, radius .674 sigma in units of the input's [0, 1] range, bfloat16 autocast. *clean* and
*noisy* are the Dice of the network itself without and with one draw of noise. *guaranteed* is the
lowest foreground Dice that any perturbation below the radius can leave. *certified* is the share
of pixels that are certified, and of the pixels answered as foreground: only the second says
something of what a user looks for. *denoised* has a published denoiser (DnCNN of 17 layers,
lanl/scico-data at 1bba085, BSD-3-Clause, trained at about this sigma) in front. *width* is the
median certified interval over images.

Made with `python -m benchmarks.study_published --case NAME`, then `--report`.
"""


def write_page(path: Path, studies: list[dict[str, Any]]) -> None:
    """Replace the section of every case there are results of; what is said about a case stands beside them."""
    if not studies:
        raise InputError("there are no results to report; run a case first, e.g. --case retina")
    parts = [_INTRODUCTION.format(**studies[0])]
    for study in studies:
        case = CASES[study["case"]]
        failed = f", {study['failed']} failed" if study["failed"] else ""
        parts.append(f"### {case.title}\n\n{case.source}. {case.about} Certified: {study['images']}{failed}.\n")
        rows, measured = [], []
        for sigma, found in study["sigmas"].items():
            for method, row in found["methods"].items():
                rows.append([sigma, f"{found['radius']:.3f}", method, *_scores(row)])
                for name, one in row["measurements"].items():
                    measured.append([sigma, method, name, *cells(one)])
        head = ["sigma", "radius", "model", "clean", "noisy", "guaranteed", "best", "certified", "of the foreground"]
        parts.append(table(head, rows))
        head = ["sigma", "model", "measurement", "median", "width", "pixels", "narrower", "below", "above"]
        parts.append(table(head, measured))
        parts.append(f"{case.said}\n")
    replace_section(path, MARKER, "\n".join(parts))


def _scores(row: dict[str, Any]) -> list[str]:
    means, front = row["foreground"], row["answered foreground certified"]
    low = means["guaranteed Dice"]
    return [
        *(f"{means[key]['mean']:.3f}" for key in ("Dice (clean)", "Dice (noisy)")),
        f"**{low['mean']:.3f}** [{low['low']:.3f}, {low['high']:.3f}]",
        f"{means['best-case Dice']['mean']:.3f}",
        f"{100 * (1 - row['abstained']):.1f} %",
        "none answered" if front is None else f"{100 * front:.1f} %",
    ]


def main() -> None:
    parser = places_parser(__doc__)
    parser.add_argument("--case", choices=[*CASES], dest="name")
    parser.add_argument("--sources", type=Path, default=ROOT.parent / "shared" / "models")
    parser.add_argument("--images", type=int, default=20)
    parser.add_argument("--n", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--report", type=Path, nargs="?", const=ROOT / "docs" / "published-models.md")
    given = parser.parse_args()
    if given.name is not None:
        found = certify(CASES[given.name], given.name, given)
        print(f"written: {write_result(given.results / f'published_{given.name}.json', found)}")
    if given.report is not None:
        known = [given.results / f"published_{name}.json" for name in CASES]
        write_page(given.report, [json.loads(one.read_text(encoding="utf-8")) for one in known if one.is_file()])
        print(f"written: {given.report}")


if __name__ == "__main__":
    main()
