"""The classification protocol of PromptSmooth (Hussein et al., MICCAI 2024), as its released code sets it.

Values that the release leaves open are ours and say so in ``notes``.
"""

from __future__ import annotations

from dataclasses import dataclass

from certimed.errors import InputError


@dataclass(frozen=True)
class ModelPreset:
    """A vision-language model of the paper.

    Attributes:
        name: its short name.
        spec: what :func:`certimed.vlm.load` takes, or None where the weights cannot be fetched by name.
        space: the certified space, in words.
        remedy: what to give instead where ``spec`` is None.
    """

    name: str
    spec: str | None
    space: str
    remedy: str = ""


@dataclass(frozen=True)
class ClassPreset:
    """One class.

    Attributes:
        words: what goes into the caption.
        folders: names its images may be found under (folder, or cell of a table); case, spaces, underscores and
            hyphens do not count.
    """

    words: str
    folders: tuple[str, ...]


@dataclass(frozen=True)
class PartNames:
    """Where the two parts of a data set may be: subfolders of the data root, or values of a table's split column.

    Attributes:
        train, test: subfolders, the first that exists is used.
        table: a table of labels that the data set itself comes with, relative to the data root, or None; besides it
            ``labels.csv`` is always looked for.
        table_splits: values of the split column for the training and the test part.
    """

    train: tuple[str, ...] = ("train", "images/train")
    test: tuple[str, ...] = ("test", "images/test")
    table: str | None = None
    table_splits: tuple[str, str] = ("train", "test")


@dataclass(frozen=True)
class ClassificationPreset:
    """One data set of the paper.

    Attributes:
        name: its short name.
        title: data set, for people.
        classes: in the published order.
        template: of the baseline, with ``{}`` for the class name; learnt methods start from ``initial_context``,
            which is the same sentence, unless ``published_template`` is asked for.
        published_template: the baseline's template in the release, where it differs.
        initial_context: words that zero-shot tuning starts from.
        models: names of :data:`MODELS` it is used with.
        parts: where training and test images are looked for.
        notes: what is ours, and what to know.
    """

    name: str
    title: str
    classes: tuple[ClassPreset, ...]
    template: str
    published_template: str
    initial_context: str
    models: tuple[str, ...]
    parts: PartNames = PartNames()
    notes: tuple[str, ...] = ()

    @property
    def class_names(self) -> tuple[str, ...]:
        """The words of all classes, in order."""
        return tuple(entry.words for entry in self.classes)


@dataclass(frozen=True)
class Protocol:
    """Settings common to all data sets.

    Attributes:
        test_images: certified; chosen by :func:`certimed.data.class_balanced` with ``seed``.
        ablation_images: certified in the ablations.
        sigmas, radii: L2 in [0, 1] units.
        n0, n, alpha, batch_size: of the certificates.
        shots, epochs, context: of few-shot tuning; the context is this many random tokens, shared by all classes.
        recipe: see :data:`certimed.prompts.RECIPES`.
        copies, steps, lr: of zero-shot tuning.
        seed: of the test subset and of all noise.
    """

    test_images: int = 500
    ablation_images: int = 100
    sigmas: tuple[float, ...] = (0.1, 0.25, 0.5, 1.0)
    radii: tuple[float, ...] = (0.0, 0.1, 0.25, 0.5, 0.75, 1.0, 1.25, 1.5, 1.75, 2.0, 2.5)
    n0: int = 100
    n: int = 10_000
    alpha: float = 1e-3
    batch_size: int = 100
    shots: int = 16
    epochs: int = 50
    context: int = 5
    recipe: str = "published"
    copies: int = 100
    steps: int = 1
    lr: float = 5e-3
    seed: int = 3

    @property
    def tuning_sigmas(self) -> tuple[float, ...]:
        """Noise levels mixed in one few-shot prompt: the certified ones and the clean image."""
        return (0.0, *self.sigmas)


PROTOCOL = Protocol()

SWEEPS: dict[str, tuple[int, ...]] = {
    "shots": (2, 4, 8, 16, 32, 64),
    "context": (2, 4, 8, 16, 32, 64),
    "steps": (1, 2, 4, 8),
    "copies": (10, 25, 50, 100, 200),
}
"""Grids of the ablations. Shots and context length run over the published range; the grids of steps and copies are
ours."""

_THREE = "three channels in [0, 1] after resize 224 (bicubic) and centre crop; noise before mean and std"
MODELS = {
    "plip": ModelPreset("plip", "hf:vinid/plip", _THREE),
    "quiltnet": ModelPreset("quiltnet", "open_clip:hf-hub:wisdomik/QuiltNet-B-32", _THREE),
    # BiomedCLIP has a wrapper in the release, but its scripts do not use it.
    "biomedclip": ModelPreset("biomedclip", "biomedclip", _THREE),
    "medclip": ModelPreset(
        "medclip",
        None,
        "ONE channel in [0, 1], padded to a square and resized to 224; the model repeats it to three, so noise and "
        "radius are those of the grey image and cannot be compared with radii measured over three channels",
        "its weights come as a zip archive, not from a hub: unpack it and name it medclip:FOLDER",
    ),
}

_HISTOLOGY = ("plip", "quiltnet", "biomedclip")
_XRAY = ("medclip", "biomedclip")
_ONE_CHANNEL = f"MedCLIP certifies {MODELS['medclip'].space}."
_XRAY_TEMPLATE = "The release has no script for X-ray sets: template and initial context are ours."


def _classes(*entries: tuple[str, str]) -> tuple[ClassPreset, ...]:
    """Classes from (words, folder names separated by |); the words themselves and the index are accepted too."""
    return tuple(
        ClassPreset(words, (*folders.split("|"), words, str(index))) for index, (words, folders) in enumerate(entries)
    )


KATHER = ClassificationPreset(
    name="kather",
    title="Kather colorectal histology (NCT-CRC-HE-100K, CRC-VAL-HE-7K), 9 tissues",
    classes=_classes(
        ("adipose tissue", "ADI"),
        ("background", "BACK"),
        ("debris", "DEB"),
        ("lymphocytes", "LYM"),
        ("mucus", "MUC"),
        ("smooth muscle", "MUS"),
        ("normal colon mucosa", "NORM"),
        ("cancer-associated stroma", "STR"),
        ("colorectal adenocarcinoma epithelium", "TUM"),
    ),
    template="An H&E image patch of {}.",
    published_template="An H&E image patch of {}.",
    initial_context="An H&E image patch of",
    models=_HISTOLOGY,
    parts=PartNames(
        train=("train", "images/train", "NCT-CRC-HE-100K", "NCT-CRC-HE-100K-NONORM"),
        test=("test", "images/test", "CRC-VAL-HE-7K"),
    ),
)

PANNUKE = ClassificationPreset(
    name="pannuke",
    title="PanNuke nuclei, benign against malignant",
    classes=_classes(("benign", "benign"), ("malignant", "malignant")),
    template="An H&E image patch of {}.",
    published_template="An H&E image of {} tissue.",
    initial_context="An H&E image patch of",
    models=_HISTOLOGY,
    notes=("PanNuke's archives have no such classes: sort its tiles into the two folders first.",),
)

SICAPV2 = ClassificationPreset(
    name="sicapv2",
    title="SICAPv2 prostate biopsies, Gleason patterns",
    classes=_classes(
        ("benign glands", "NC"),
        ("atrophic dense glands", "G3"),
        ("cribriform ill-formed fused papillary patterns", "G4"),
        ("isolated nest cells without lumen roseting patterns", "G5"),
    ),
    template="a histopathology slide showing {}.",
    published_template="a histopathology slide showing {}",
    initial_context="a histopathology slide showing",
    models=_HISTOLOGY,
    notes=(
        "SICAPv2's own partition is a spreadsheet: sort its tiles into folders (the largest of NC, G3, G4, G5), or "
        "write it as labels.csv with columns image, label, split.",
    ),
)

SKINCANCER = ClassificationPreset(
    name="skincancer",
    title="Skin cancer histology (Kriegsmann et al.), 16 tissues and tumours",
    classes=_classes(
        ("necrosis", "nontumor_skin_necrosis_necrosis"),
        ("skeletal muscle", "nontumor_skin_muscle_skeletal"),
        ("eccrine sweat glands", "nontumor_skin_sweatglands_sweatglands"),
        ("vessels", "nontumor_skin_vessel_vessel"),
        ("elastosis", "nontumor_skin_elastosis_elastosis"),
        ("chondral tissue", "nontumor_skin_chondraltissue_chondraltissue"),
        ("hair follicle", "nontumor_skin_hairfollicle_hairfollicle"),
        ("epidermis", "nontumor_skin_epidermis_epidermis"),
        ("nerves", "nontumor_skin_nerves_nerves"),
        ("subcutis", "nontumor_skin_subcutis_subcutis"),
        ("dermis", "nontumor_skin_dermis_dermis"),
        ("sebaceous glands", "nontumor_skin_sebaceousglands_sebaceousglands"),
        ("squamous-cell carcinoma", "tumor_skin_epithelial_sqcc"),
        ("melanoma in-situ", "tumor_skin_melanoma_melanoma"),
        ("basal-cell carcinoma", "tumor_skin_epithelial_bcc"),
        ("naevus", "tumor_skin_naevus_naevus"),
    ),
    template="a histopathology slide showing {}.",
    published_template="a histopathology slide showing {}",
    initial_context="a histopathology slide showing",
    models=_HISTOLOGY,
    parts=PartNames(table="data/tiles-v2.csv", table_splits=("Train", "Test")),
)

COVID19 = ClassificationPreset(
    name="covid19",
    title="COVID-19 radiography database, covid against normal",
    classes=_classes(("covid", "COVID|COVID-19"), ("normal", "Normal")),
    template="a chest x-ray showing {}.",
    published_template="a chest x-ray showing {}.",
    initial_context="a chest x-ray showing",
    models=_XRAY,
    notes=(_XRAY_TEMPLATE, _ONE_CHANNEL),
)

RSNA18 = ClassificationPreset(
    name="rsna18",
    title="RSNA pneumonia detection challenge 2018, 3 classes",
    classes=_classes(
        ("Lung Opacity", "Lung Opacity"),
        ("No Lung Opacity Not Normal", "No Lung Opacity / Not Normal|Not Normal"),
        ("Normal", "Normal"),
    ),
    template="a chest x-ray showing {}.",
    published_template="a chest x-ray showing {}.",
    initial_context="a chest x-ray showing",
    models=_XRAY,
    notes=(
        _XRAY_TEMPLATE,
        _ONE_CHANNEL,
        "The challenge's test labels were not published: split its training images by patient, and write labels.csv "
        "with columns image, label, split, patient.",
    ),
)

DATASETS = {preset.name: preset for preset in (KATHER, PANNUKE, SICAPV2, SKINCANCER, COVID19, RSNA18)}


def classification_preset(name: str) -> ClassificationPreset:
    """The preset of a data set; raises InputError with the names there are."""
    if name not in DATASETS:
        raise InputError(f"data set {name} is unknown; use one of {', '.join(DATASETS)}")
    return DATASETS[name]


def model_spec(name: str, preset: ClassificationPreset) -> str:
    """What to load for a model: a name of :data:`MODELS` allowed for the data set, or any spec, as it is.

    Raises:
        InputError: a named model that the data set is not used with, or whose weights have no name to fetch them by.
    """
    if name not in MODELS:
        return name
    if name not in preset.models:
        raise InputError(
            f"model {name} is not used with {preset.name} (its models: {', '.join(preset.models)}); "
            "give a spec such as hf:ORG/NAME to run it anyway"
        )
    model = MODELS[name]
    if model.spec is None:
        raise InputError(f"model {name} cannot be fetched by name: {model.remedy}")
    return model.spec
