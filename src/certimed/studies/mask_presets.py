"""The segmentation protocol (Laousy et al., MICCAI 2023), as its released code sets it: data only.

Values that the release leaves open are ours and say so in ``notes``.
"""

from __future__ import annotations

from dataclasses import dataclass

from certimed.errors import InputError

CVC_FIRST_FRAMES = (
    *(1, 26, 51, 68, 79, 104, 127, 152, 178, 200, 206, 228, 253, 278, 298),
    *(318, 343, 364, 384, 409, 429, 448, 467, 479, 504, 529, 547, 572, 592),
)
"""First frame of each of the 29 sequences of CVC-ClinicDB's 612 frames; frames are numbered from 1."""


@dataclass(frozen=True)
class SplitRule:
    """How images are divided into training, validation and test part.

    Attributes:
        sizes: images of the three parts where the release counts them; else None.
        shares: shares of the three parts, used where ``sizes`` is None.
        seed: of the shuffle.
        pooled: parts of the original release that are put together first, in words; empty: one part.
        by: what must not be torn apart: ``"image"``, ``"patient"`` or ``"sequence"``.
    """

    sizes: tuple[int, int, int] | None = None
    shares: tuple[float, float, float] = (0.8, 0.1, 0.1)
    seed: int = 42
    pooled: tuple[str, ...] = ()
    by: str = "image"


@dataclass(frozen=True)
class SegmentationPreset:
    """One data set of the paper.

    Attributes:
        name: its short name.
        title: for people.
        class_names: index is the mask value; 0 is the background.
        size: height and width the images are resized to.
        channels: 1 (grey) or 3.
        images, masks: subfolders expected below the data root.
        published_split: as in the release.
        leak_free_split: where the published one can put parts of one patient or video on both sides; else the same.
        images_expected: number of images in the whole set; a warning, not an error, if another number is found.
        group: what images of one origin share, in words; None where every image is a patient of its own.
        notes: what is ours, and what to know.
    """

    name: str
    title: str
    class_names: tuple[str, ...]
    size: tuple[int, int]
    channels: int
    images: tuple[str, ...]
    masks: tuple[str, ...]
    published_split: SplitRule
    leak_free_split: SplitRule
    images_expected: int
    group: str | None = None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class SegmentationProtocol:
    """Settings common to all data sets.

    Attributes:
        sigmas: L2 in [0, 1] units.
        n0, n, alpha, tau, correction: of the certificates; the radius is sigma times the normal quantile of tau.
        models: architectures by name, as segmentation_models_pytorch calls them.
        training: optimiser, rate, batch size, epochs, loss; no noise is added in training.
        diffusion: the denoiser's checkpoint.
    """

    sigmas: tuple[float, ...] = (0.25, 0.5, 1.0)
    n0: int = 10
    n: int = 100
    alpha: float = 1e-3
    tau: float = 0.75
    correction: str = "holm"
    models: tuple[str, ...] = ("Unet", "UnetPlusPlus", "DeepLabV3Plus")
    training: tuple[str, float, int, int, str] = ("adam", 1e-3, 16, 100, "dice")
    diffusion: str = "256x256_diffusion_uncond.pt"


PROTOCOL = SegmentationProtocol()

_OURS = "The release does not list which images are in which part: sizes and shuffle are ours."
_BY_IMAGE = SplitRule()
_IMAGES, _MASKS = ("images",), ("masks",)

JSRT = SegmentationPreset(
    name="jsrt",
    title="JSRT chest radiographs with SCR masks",
    class_names=("background", "right lung", "left lung", "heart"),
    size=(512, 512),
    channels=1,
    images=_IMAGES,
    masks=_MASKS,
    published_split=_BY_IMAGE,
    leak_free_split=_BY_IMAGE,
    images_expected=247,
    notes=(_OURS, "One image a patient, so a split by image cannot leak."),
)
MONTGOMERY = SegmentationPreset(
    name="montgomery",
    title="Montgomery County chest radiographs",
    class_names=("background", "lung"),
    size=(512, 512),
    channels=1,
    images=(*_IMAGES, "CXR_png"),
    masks=_MASKS,
    published_split=_BY_IMAGE,
    leak_free_split=_BY_IMAGE,
    images_expected=138,
    notes=(_OURS, "Left and right masks come in two folders: join them into masks first."),
)
SHENZHEN = SegmentationPreset(
    name="shenzhen",
    title="Shenzhen Hospital chest radiographs",
    class_names=("background", "lung"),
    size=(512, 512),
    channels=1,
    images=(*_IMAGES, "CXR_png"),
    masks=(*_MASKS, "mask"),
    published_split=_BY_IMAGE,
    leak_free_split=_BY_IMAGE,
    images_expected=566,
    notes=(_OURS, "566 of the 662 radiographs have masks."),
)
ISIC2018 = SegmentationPreset(
    name="isic2018",
    title="ISIC 2018 dermoscopy, lesion boundary (task 1)",
    class_names=("background", "lesion"),
    size=(384, 512),
    channels=3,
    images=(*_IMAGES, "ISIC2018_Task1-2_Training_Input"),
    masks=(*_MASKS, "ISIC2018_Task1_Training_GroundTruth"),
    published_split=SplitRule(pooled=("train", "val")),
    leak_free_split=SplitRule(pooled=("train", "val")),
    images_expected=2694,
    notes=(
        "Training and validation images are pooled, shuffled with seed 42 and divided 80/10/10, as published.",
        "The archive does not say which lesions are of one patient: no leak-free alternative can be built from it.",
    ),
)
CVC_CLINICDB = SegmentationPreset(
    name="cvc-clinicdb",
    title="CVC-ClinicDB colonoscopy, polyps",
    class_names=("background", "polyp"),
    size=(288, 384),
    channels=3,
    images=(*_IMAGES, "Original"),
    masks=(*_MASKS, "Ground Truth"),
    published_split=SplitRule(sizes=(490, 61, 61)),
    leak_free_split=SplitRule(sizes=(490, 61, 61), by="sequence"),
    images_expected=612,
    group="video sequence",
    notes=(
        "The 612 frames come from 29 video sequences: neighbouring frames are almost the same picture, so the "
        "published random split tests on what it trained on. The split by sequence does not.",
    ),
)

DATASETS = {preset.name: preset for preset in (JSRT, MONTGOMERY, SHENZHEN, ISIC2018, CVC_CLINICDB)}


def segmentation_preset(name: str) -> SegmentationPreset:
    """The preset of a data set; raises InputError with the names there are."""
    if name not in DATASETS:
        raise InputError(f"data set {name} is unknown; use one of {', '.join(DATASETS)}")
    return DATASETS[name]
