"""The options of a request, declared once: each row is one field of :class:`certimed.runs.RunSpec`.

No option has a default here: what is not given has the request's own default, so that what was typed can be told from
what was not, and a resumed run can refuse exactly the options that differ from it.
"""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from certimed.errors import InputError

CLASSES, MASKS, MEASUREMENTS = ("classes",), ("masks", "measurements"), ("measurements",)
ALL = (*CLASSES, *MASKS)
TASKS = {"classes": "classes", "masks": "mask", "measurements": "interval"}
"""Verb to the kind of certificates."""

SETTINGS = "settings"
"""The verb of all three in the space of a workflow's settings."""

_OF_PIXELS = ("--denoiser", "--sigma", "--space")


@dataclass(frozen=True)
class Option:
    """One option.

    Attributes:
        flag: as typed.
        field: place in the request, parts separated by dots.
        type: what typer makes of the text.
        help: for people.
        panel: heading in the help.
        verbs: which verbs have it.
        read: from typer's value to the request's.
        differs: whether a resumed run may have another value: how it is computed, and where model and data lie (that
            they are the same is checked by content).
    """

    flag: str
    field: str
    type: Any
    help: str
    panel: str
    verbs: tuple[str, ...] = ALL
    read: Callable[[Any], Any] = lambda value: value
    differs: bool = False

    def serves(self, verb: str) -> bool:
        """Whether a verb has it."""
        return verb in self.verbs or (verb == SETTINGS and self.flag not in _OF_PIXELS)

    @property
    def name(self) -> str:
        """Name of the parameter."""
        return self.flag.removeprefix("--").replace("-", "_")


def _inputs(name: str, *before: str) -> Callable[[Any], Any]:
    """A reader of :mod:`certimed.cli.inputs`, imported when it reads: help must not wait for torch."""

    def read(text: Any) -> Any:
        from certimed.cli import inputs

        return getattr(inputs, name)(*before, text)

    return read


def _numbers(flag: str) -> Callable[[Any], Any]:
    return lambda text: list(_inputs("numbers", flag)(text))


def _commas(text: str) -> list[str]:
    return [part.strip() for part in text.split(",")]


_MODEL, _DATA, _NOISE, _METHODS, _SPEED = "Model", "Data", "Smoothing", "Methods", "Speed"
_MEASURED = "Measurements"
_MODEL_HELP = {
    "classes": "hf:FOLDER_OR_ID, timm:NAME:FILE, torchvision:NAME:FILE, onnx:FILE, open_clip:hf-hub:ORG/NAME, "
    "biomedclip, medclip:FOLDER, a folder, demo; yours: python:MODULE:FACTORY.",
    "masks": "smp:FOLDER, smp:ARCH:ENCODER:FILE, monai:BUNDLE, nnunet:FOLDER, hf:FOLDER, sam:FOLDER, onnx:FILE, "
    "unet:FOLDER, demo; "
    "yours: python:MODULE:FACTORY.",
}
_BUDGET_HELP = {
    "classes": "When to stop sampling, alpha covering all looks: grid (default: published radii, at most 10000 "
    "copies), grid:0,0.25,0.5@N, betting:RADIUS, planned:5%, looks:100,1000,10000, fixed:N.",
    "masks": "When to stop sampling, alpha covering all looks: fixed:100 (default), pixels:100,200,400/0.01.",
    "measurements": "When to stop sampling, alpha covering all looks: fixed:100 (default), looks:100,200,400,1000, "
    "which stops once every --threshold and --width is settled; with --tau: fixed:N, pixels:100,200,400.",
}
OPTIONS = (
    Option("--model", "model", str, "", _MODEL, differs=True),
    Option("--denoiser", "denoiser", str, "In front: diffusers:FOLDER_OR_ID, guided-diffusion:FILE, onnx:FILE; "
           "yours: python:MODULE:FACTORY.", _MODEL, differs=True),
    Option("--size", "size", str, "Resize to HEIGHTxWIDTH (volumes: three sides); of a python: or onnx: classifier, "
           "its input size.", _MODEL,
           read=_inputs("sides", "--size")),
    Option("--resample", "resample", str, "Resize to this spacing, in mm along each axis, by commas: 1,1,1.", _MODEL,
           MASKS, read=_numbers("--resample")),
    Option("--output", "output", str, "What the network returns, where its files do not say: logits, probabilities, "
           "'binary logit', 'binary probability'.", _MODEL, MASKS),
    Option("--normalise", "normalise", str, "How inputs are normalised, where the files do not say: imagenet, none, or "
           "MEAN;STD (one value a channel, by commas); with ;bgr behind it: trained on images that OpenCV read.",
           _MODEL),
    Option("--device", "device", str, "auto (default: a GPU where there is one), cpu, cuda, cuda:1, ...", _MODEL,
           differs=True),
    Option("--data", "data.path", Path, "Folder of images or class subfolders, a single image, or an .npz.", _DATA,
           read=str, differs=True),
    Option("--classes", "data.classes", str, "Class names in words, by commas, or a text file with one a line; "
           "FOLDER=WORDS maps.", _DATA, read=_inputs("class_entries")),
    Option("--labels", "data.labels", Path, "CSV with columns image,label for a flat folder.", _DATA, CLASSES,
           read=str, differs=True),
    Option("--masks", "data.masks", Path, "Folder of masks, if not masks/ beside images/.", _DATA, MASKS, read=str,
           differs=True),
    Option("--boxes", "data.boxes", str, "CSV with columns image,left,top,right,bottom: boxes for sam: segmenters; "
           "default: around the true mask.", _DATA, MASKS, differs=True),
    Option("--image-column", "data.image_column", str, "Column of the images in the table.", _DATA, CLASSES),
    Option("--label-column", "data.label_column", str, "Column of the labels in the table.", _DATA, CLASSES),
    Option("--patches", "data.patches", str, "Cut whole-slide images: grid:SIZE, or a CSV of x, y, size.", _DATA),
    Option("--level", "data.reading.level", int, "Level of a whole-slide image, from 0, the largest.", _DATA),
    Option("--volume", "data.reading.volume", bool, "Read volumes (NIfTI, DICOM series) whole, for 3-D networks.",
           _DATA, MASKS),
    Option("--orientation", "data.reading.orientation", str, "Turn the axes of volumes, e.g. to RAS; default: as "
           "stored.", _DATA, MASKS),
    Option("--slices", "data.slices", str, "Slices of volumes as images: all, every:K, or A:B.", _DATA),
    Option("--series", "data.reading.series", str, "Number or UID of the DICOM series, where a folder holds several.",
           _DATA),
    Option("--percentiles", "data.reading.percentiles", str, "Percentiles of a volume that become 0 and 1, LOW,HIGH; "
           "0.5,99.5.", _DATA, read=_numbers("--percentiles")),
    Option("--nan", "data.reading.nan", str, "Values that are no number: refuse, zero or min.", _DATA),
    Option("--split", "data.split", str, "Part of the data set to use, e.g. test, where it names its parts.", _DATA),
    Option("--limit", "data.limit", int, "The first N images only (class-balanced where labelled).", _DATA),
    Option("--window", "data.reading.window", str, "DICOM window as CENTER,WIDTH; default: the header's.", _DATA,
           read=_inputs("centre_width")),
    Option("--frame", "data.reading.frame", int, "Frame of multi-frame files, from 0.", _DATA),
    Option("--axis", "data.reading.axis", str, "NIfTI plane: sagittal, coronal or axial.", _DATA),
    Option("--slice", "data.reading.slice", int, "NIfTI slice, from 0; default: the middle one.", _DATA),
    Option("--methods", "methods", str, "", _METHODS, read=_commas),
    Option("--template", "templates", list[str], "Caption with {} where the class name goes; repeat for several, which "
           "are averaged.", _METHODS, CLASSES),
    Option("--initial-context", "tuning.initial_context", str, "Words a context starts from; default: the template's, "
           "before {}.", _METHODS, CLASSES),
    Option("--copies", "tuning.copies", int, "Noisy copies for per-image tuning; 100.", _METHODS, CLASSES),
    Option("--tuning-steps", "tuning.steps", int, "Steps of per-image tuning; 1.", _METHODS, CLASSES),
    Option("--tuning-lr", "tuning.lr", float, "Learning rate of per-image tuning; 0.005.", _METHODS, CLASSES),
    Option("--sigma", "sigma", float, "Noise standard deviation in [0, 1] intensity units; 0.25.", _NOISE),
    Option("--noise", "noise", str, "Noise law: grid (exact in floating point) or float32 (as published).", _NOISE),
    Option("--n0", "n0", int, "Noisy copies that choose the class; 100, or 10 for masks.", _NOISE),
    Option("--budget", "budget", str, "", _NOISE),
    Option("--alpha", "alpha", float, "Failure probability of each certificate; 0.001.", _NOISE),
    Option("--bound", "target.bound", str, "one-sided, two-sided or best.", _NOISE, CLASSES),
    Option("--tau", "target.taus", str, "Agreement to exceed; sets the radius; 0.75. Several by commas, fixed "
           "beforehand: alpha is shared.", _NOISE, MASKS, read=_numbers("--tau")),
    Option("--correction", "target.correction", str, "holm or bonferroni.", _NOISE, MASKS),
    Option("--empty", "target.empty", str, "Dice of a class absent from truth and answer: one, zero, skip.", _NOISE,
           MASKS),
    Option("--measure", "target.measurements", str, "What is measured, by commas: area:CLASS, volume, diameter, count, "
           "ctr, centroid_x, intensity, dice, iou; classes joined by +; python:MODULE:FUNCTION.", _MEASURED,
           MEASUREMENTS, read=_commas),
    Option("--radius", "target.radii", str, "Radii of the intervals, L2, by commas, fixed beforehand.", _MEASURED,
           MEASUREMENTS, read=_numbers("--radius")),
    Option("--threshold", "target.thresholds", str, "Numbers whose side is asked, by commas: ctr=0.5.", _MEASURED,
           MEASUREMENTS, read=_commas),
    Option("--width", "target.widths", str, "How narrow intervals are to be at the largest radius: ctr=0.05.",
           _MEASURED, MEASUREMENTS, read=_commas),
    Option("--spacing", "target.spacing", str, "Millimetres from pixel to pixel of the files, DOWN,ACROSS, where they "
           "do not say.", _MEASURED, MEASUREMENTS, read=_numbers("--spacing")),
    Option("--seed", "seed", int, "Seed of all noise; 0.", _NOISE),
    Option("--space", "space", str, "Where noise is added and radii live: input (after resizing) or native.", _NOISE,
           read=_inputs("space")),
    Option("--vary", "vary", str, "Settings and their noise, by commas: window-center=30HU, window-width=0.2, gain, "
           "offset, gamma, crop-x, crop-y, crop-scale, rotation, slice, box, click; python:MODULE:FUNCTION=NOISE.",
           _NOISE, (SETTINGS,), read=_commas),
    Option("--precision", "speed.precision", str, "float32, bfloat16 or (GPU) float16: what is certified is the model "
           "that ran.", _SPEED),
    Option("--engine", "speed.engine", str, "What runs the model: torch, compile (torch.compile), openvino or "
           "onnxruntime; it is that program which is certified.", _SPEED),
    Option("--channels-last", "speed.channels_last", bool, "Memory layout that suits some convolutions.", _SPEED),
    Option("--batch-size", "batch_size", str, "Noisy copies a forward pass, or auto: probed once, then recorded; does "
           "not change the noise.", _SPEED, read=_inputs("batch_size"), differs=True),
)  # fmt: skip
_MODEL_HELP["measurements"] = _MODEL_HELP["masks"]
_MODEL_HELP[SETTINGS] = "As of classes or masks, whichever the target is."
_BUDGET_HELP[SETTINGS] = "As of the target: classes, masks or measurements."
_BY_VERB = {"model": _MODEL_HELP, "budget": _BUDGET_HELP}
_BY_VERB["methods"] = {
    "classes": "Methods and files, by commas: plain, zero-shot, both, per-sample, split, test-time-lora, denoised, "
    "FILE of a prompt or an adapter, denoised+FILE.",
    **dict.fromkeys(MASKS, "plain, denoised, FILE of an adapter, denoised+FILE; default: all that can be had."),
}
_BY_VERB["methods"][SETTINGS] = "plain, and prompt files."
_BY_VERB["target.taus"] = {
    "measurements": "Certify the masks too, from the same samples: agreement to exceed, e.g. 0.75; several by commas."
}


def verb_command(verb: str, run: Callable[..., None], more: Mapping[str, Any]) -> Callable[..., None]:
    """A function typer can read, with the options of a verb and some more, that calls ``run(verb, given, **more)``.

    Args:
        more: further parameters: name to (annotation, default).
    """
    own = [option for option in OPTIONS if option.serves(verb)]

    def command(**values: Any) -> None:
        given = {option.field: (option, values.pop(option.name)) for option in own}
        typed = {field: pair for field, pair in given.items() if pair[1] is not None and pair[1] != []}
        run(verb, typed, **values)

    parameters = {
        option.name: (
            Annotated[
                option.type | None,
                typer.Option(
                    option.flag,
                    help=_BY_VERB.get(option.field, {}).get(verb, option.help),
                    rich_help_panel=option.panel,
                ),
            ],
            None,
        )
        for option in own
    } | dict(more)
    keyword = inspect.Parameter.KEYWORD_ONLY
    command.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
        [
            inspect.Parameter(name, keyword, default=default, annotation=annotation)
            for name, (annotation, default) in parameters.items()
        ]
    )
    command.__annotations__ = {name: annotation for name, (annotation, _) in parameters.items()}
    command.__name__ = verb
    return command


Typed = Mapping[str, tuple[Option, Any]]
"""By field: the option and what was typed."""

OPTION_OF = {option.field: option for option in OPTIONS}
MODEL_AND_DATA: Typed = {field: (OPTION_OF[field], "none") for field in ("model", "data.path")}
"""Stand-ins where a request is made for its numbers only."""


def request(verb: str, typed: Typed, config: Path | None = None) -> dict[str, Any]:
    """The request that a file and options make together, options winning; plain data for ``RunSpec.from_dict``.

    Raises:
        InputError: a value that cannot be read, or no model or data.
    """
    data = {} if config is None else read_config(config)
    if data.setdefault("task", TASKS[verb]) != TASKS[verb]:
        raise InputError(f"{config} asks for {data['task']!r:.40}; use the verb that certifies it")
    for field, (option, value) in typed.items():
        _put(data, field, option.read(value))
    for flag, field, example in (("--model", "model", "hf:vinid/plip"), ("--data", "data.path", "images/")):
        if _get(data, field) is None:
            raise InputError(f"{flag} is missing; add it, e.g. {flag} {example}")
    if verb in MASKS and "methods" not in data:
        data["methods"] = ["plain", "denoised"] if data.get("denoiser") else ["plain"]
    return data


def resumed(verb: str, recorded: object, typed: Typed, where: Path) -> dict[str, Any]:
    """The recorded request with what was typed for fields that may differ; anything else that differs is refused.

    Raises:
        InputError: a run of the other verb, or an option that differs: the option, the recorded value, the one given.
    """
    from certimed.runs import RunSpec

    before = RunSpec.from_dict(recorded).to_dict()
    if before["task"] != TASKS[verb]:
        raise InputError(f"{where} is a run of {before['task']}; go on with it by: certimed certify --resume {where}")
    wanted = json.loads(json.dumps(before))
    for field, (option, value) in typed.items():
        _put(wanted, field, option.read(value))
    # Both have one spelling when they are compared: 400 and fixed:400 are one budget.
    after = RunSpec.from_dict(wanted).to_dict()
    for field, (option, value) in typed.items():
        was, now = _get(before, field), _get(after, field)
        if was != now and not option.differs:
            raise InputError(
                f"{option.flag} {_shown(value)} differs from the run {where}, which was started with "
                f"{json.dumps(was)}; leave it out, or start a new run"
            )
    return after


def _shown(value: Any) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def read_config(path: Path) -> dict[str, Any]:
    """A request from a YAML, TOML or JSON file; InputError where it cannot be read as one."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"--config {path} cannot be read: {error}") from error
    readers: dict[str, Callable[[str], Any]] = {".json": json.loads, ".toml": _toml, ".yaml": _yaml, ".yml": _yaml}
    if path.suffix.lower() not in readers:
        raise InputError(f"--config {path} must end in .yaml, .toml or .json")
    try:
        found = readers[path.suffix.lower()](text)
    except InputError:
        raise
    except Exception as error:  # every parser has errors of its own
        raise InputError(f"--config {path} is broken: {' '.join(str(error).split())[:200]}") from error
    if not isinstance(found, dict):
        raise InputError(f"--config {path} must hold named fields, as certify --dry-run prints them")
    return found


def _yaml(text: str) -> Any:
    import yaml

    return yaml.safe_load(text)


def _toml(text: str) -> Any:
    try:
        import tomllib
    except ImportError as error:
        raise InputError("TOML needs Python 3.11 or newer; write the request as YAML or JSON") from error
    return tomllib.loads(text)


def _put(data: dict[str, Any], field: str, value: Any) -> None:
    *parents, last = field.split(".")
    for name in parents:
        inner = data.setdefault(name, {})
        if not isinstance(inner, dict):
            raise InputError(f"{name} must be an object with named fields, not {type(inner).__name__}")
        data = inner
    data[last] = value


def _get(data: Mapping[str, Any], field: str) -> Any:
    place: Any = data
    for name in field.split("."):
        place = place.get(name) if isinstance(place, Mapping) else None
    return place
