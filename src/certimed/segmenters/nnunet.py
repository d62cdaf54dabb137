"""nnU-Net v2 result folders: plans and weights, without nnU-Net and without running foreign code.

A folder is what ``nnUNetv2_train`` writes: ``plans.json``, ``dataset.json`` and ``fold_*/checkpoint_final.pth``. Its
network is built with dynamic-network-architectures from the plans. It answers as nnU-Net's predictor does on the same
array: windows of the patch size, half a window apart, blended by a Gaussian, folds averaged, no mirroring. The volume
is what was read and, where asked for, resampled; noise is added to that, and normalisation comes after it, inside the
model.
"""

from __future__ import annotations

import importlib
import itertools
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from certimed.errors import InputError, require
from certimed.models.fitting import fit
from certimed.models.sources import brief, read_json
from certimed.models.weights import read_weights
from certimed.segmenters.adapter import SegmentationModel

_LIBRARY = "dynamic_network_architectures"
_CHECKPOINT = "checkpoint_final.pth"
_WEIGHTS = "network_weights"
_STEP = 0.5
_PEAK = 10.0  # of the Gaussian that blends windows
_WIDTH = 1 / 8
_LEAST = 1e-8
_SCHEMES = ("ZScoreNormalization", "CTNormalization", "RescaleTo01Normalization", "RGBTo01Normalization")


def nnunet_folder(reference: str | Path, *, output: str | None = None, **settings: Any) -> SegmentationModel:
    """The network of an nnU-Net v2 result folder, ``FOLDER[:CONFIGURATION]``, of the configurations 2d and 3d_*.

    Args:
        reference: the folder with ``plans.json``, or the one above it and the configuration's name.
        output: logits, if given.
        settings: none is taken; the plans say all.

    Raises:
        InputError: a file is missing, a cascade, regions in place of classes, a normalisation over non-zero voxels or
            none at all, several configurations without a choice. ModelError: weights that do not fit.
    """
    if settings or output not in (None, "logits"):
        raise InputError(f"the plans of {reference} say all of it; leave {', '.join([*settings, 'output'])} out")
    folder, name = _folder(str(reference))
    plans, dataset = (read_json(folder / one, "how nnU-Net was trained") for one in ("plans.json", "dataset.json"))
    configuration = _configuration(plans, name, folder)
    channels, classes = len(dataset.get("channel_names") or dataset.get("modality") or {}), _classes(dataset, folder)
    schemes = _schemes(configuration, plans, channels, folder)
    folds = sorted(path.parent for path in folder.glob(f"fold_*/{_CHECKPOINT}"))
    if not folds:
        raise InputError(f"{folder} has no fold_*/{_CHECKPOINT}; train it to its end, or copy the file")
    networks = []
    for fold in folds:
        network = _build(configuration, channels, classes, folder)
        fit(network, read_weights(fold / _CHECKPOINT, _WEIGHTS), normalisation=True)
        networks.append(network.eval())
    order = [int(axis) for axis in plans.get("transpose_forward", (0, 1, 2))]
    patch = tuple(int(side) for side in configuration["patch_size"])
    model = SegmentationModel(
        NnUNet(networks, patch, schemes, order),
        num_classes=classes,
        output="logits",
        in_channels=channels,
        name=f"nnU-Net {name} ({folder.name})",
        configuration={"library": _LIBRARY, "plans": configuration, "order": order, "schemes": schemes},
        libraries=(_LIBRARY.replace("_", "-"),),
        notes=_notes(configuration, plans, order, [fold.name for fold in folds]),
    )
    if len(patch) == 2:
        model.axes = None  # of a volume, slice by slice along its first axis, as nnU-Net does
    windows = [one["window"] for one in schemes if "window" in one]
    model.reading_window = tuple(windows[0]) if windows else None
    return model


class NnUNet(nn.Module):
    """``(B, C, *space)`` in [0, 1] -> logits: normalise, cut into windows, answer, blend, average over the folds.

    Volumes come as NIfTI has them (i, j, k); nnU-Net's arrays are the reverse, in the order of its plans. A 2-D network
    answers a volume slice by slice.

    Args:
        networks: one a fold.
        patch: sides of a window.
        schemes: one a channel: ``{"scheme": NAME}``, and for CT ``window``, ``mean`` and ``std``.
        order: ``transpose_forward`` of the plans.
    """

    weights: Tensor

    def __init__(
        self,
        networks: Sequence[nn.Module],
        patch: tuple[int, ...],
        schemes: Sequence[Mapping[str, Any]],
        order: Sequence[int],
    ) -> None:
        super().__init__()
        self.folds = nn.ModuleList(networks)
        self.patch, self.schemes, self.order = patch, tuple(dict(one) for one in schemes), order
        self.register_buffer("weights", window_weights(patch), persistent=False)
        self.eval()

    def forward(self, x: Tensor) -> Tensor:
        """Logits ``(B, K, *space)``."""
        volume = x.ndim == 5
        if volume:  # (i, j, k) -> (k, j, i) -> as planned
            turn = [4 - axis for axis in self.order]
            x = x.permute(0, 1, *turn)
        logits = self.logits(self.normalised(x))
        if volume:
            logits = logits.permute(0, 1, *[2 + turn.index(axis) for axis in (2, 3, 4)])
        return logits

    def normalised(self, x: Tensor) -> Tensor:
        """Each channel as its scheme in the plans says, by this image's own values where the scheme does."""
        return torch.stack([_normalise(x[:, index], one) for index, one in enumerate(self.schemes)], dim=1)

    def logits(self, x: Tensor) -> Tensor:
        """Of arrays that are preprocessed: nnU-Net's windows, blended."""
        if len(self.patch) < x.ndim - 2:  # slices of a volume, one after the other
            return torch.stack([self.logits(plane) for plane in x.unbind(2)], dim=2)
        space = x.shape[2:]
        missing = [max(0, side - size) for side, size in zip(self.patch, space)]
        if any(missing):
            # functional.pad counts axes from the last one.
            pads = [value for gap in reversed(missing) for value in (gap // 2, gap - gap // 2)]
            x = functional.pad(x, pads)
        total: Tensor | None = None
        divisor = x.new_zeros(x.shape[2:])
        for starts in itertools.product(*map(window_starts, x.shape[2:], self.patch)):
            piece = x
            for axis, (start, side) in enumerate(zip(starts, self.patch), start=2):
                piece = piece.narrow(axis, start, side)
            answer = torch.stack([fold(piece.contiguous()) for fold in self.folds]).mean(dim=0)
            if total is None:
                total = answer.new_zeros((*answer.shape[:2], *x.shape[2:]))
            window = tuple(slice(start, start + side) for start, side in zip(starts, self.patch))
            total[(slice(None),) * 2 + window] += answer * self.weights
            divisor[window] += self.weights
        assert total is not None
        total = total.div_(divisor)
        for axis, (gap, size) in enumerate(zip(missing, space), start=2):
            total = total.narrow(axis, gap // 2, size)
        return total


def window_starts(size: int, side: int) -> list[int]:
    """Where windows begin along an axis: evenly, at most half a window apart, as nnU-Net places them."""
    count = math.ceil((size - side) / (side * _STEP)) + 1
    return [int(np.round((size - side) / max(1, count - 1) * index)) for index in range(count)]


def window_weights(patch: Sequence[int]) -> Tensor:
    """nnU-Net's Gaussian over a window, peak 10, rounded to half precision as it rounds it; float32 ``patch``."""
    from scipy.ndimage import gaussian_filter

    spike = np.zeros(patch)
    spike[tuple(side // 2 for side in patch)] = 1
    found = gaussian_filter(spike, [side * _WIDTH for side in patch], 0, mode="constant", cval=0)
    weights = torch.from_numpy(found / (found.max() / _PEAK)).half()
    weights[weights == 0] = weights[weights > 0].min()
    as_float: Tensor = weights.float()
    return as_float


def _normalise(x: Tensor, scheme: Mapping[str, Any]) -> Tensor:
    axes = tuple(range(1, x.ndim))
    if scheme["scheme"] == "ZScoreNormalization":
        spread, mean = torch.std_mean(x, dim=axes, correction=0, keepdim=True)
        return (x - mean) / spread.clamp_min(_LEAST)
    if scheme["scheme"] == "RescaleTo01Normalization":
        low, high = x.amin(dim=axes, keepdim=True), x.amax(dim=axes, keepdim=True)
        return (x - low) / (high - low).clamp_min(_LEAST)
    if scheme["scheme"] == "CTNormalization":
        centre, width = scheme["window"]
        values: Tensor = (x.clamp(0, 1) * width + (centre - width / 2) - scheme["mean"]) / max(scheme["std"], _LEAST)
        return values
    return x


def _folder(reference: str) -> tuple[Path, str]:
    """The folder with the plans, and the configuration's name."""
    place, colon, wanted = reference.rpartition(":")
    folder = Path(place if colon and not Path(reference).expanduser().is_dir() else reference).expanduser()
    wanted = wanted if colon and folder == Path(place).expanduser() else ""
    if not folder.is_dir():
        raise InputError(f"there is no folder {folder}; write nnunet:FOLDER or nnunet:FOLDER:CONFIGURATION")
    found = {folder.name.rpartition("__")[2]: folder} if (folder / "plans.json").is_file() else {}
    found = found or {path.parent.name.rpartition("__")[2]: path.parent for path in sorted(folder.glob("*/plans.json"))}
    if not found:
        raise InputError(f"{folder} is no nnU-Net result folder: no plans.json in it, nor in a folder below it")
    if wanted not in found and (wanted or len(found) > 1):
        raise InputError(
            f"{folder} holds the configurations {', '.join(sorted(found))}; choose one: "
            f"nnunet:{folder}:{sorted(found)[0]}"
        )
    name = wanted or next(iter(found))
    return found[name], name


def _configuration(plans: Mapping[str, Any], name: str, folder: Path) -> dict[str, Any]:
    """The configuration, with what it inherits."""
    known = plans.get("configurations")
    found: dict[str, Any] = {}
    seen: list[str] = []
    while isinstance(known, dict) and isinstance(known.get(name), dict) and name not in seen:
        seen.append(name)
        found = {**known[name], **found}
        name = str(known[name].get("inherits_from"))
    if not isinstance(found.get("architecture"), dict) or not isinstance(found.get("patch_size"), list):
        raise InputError(f"{folder / 'plans.json'} has no architecture and patch_size for this configuration")
    if found.get("previous_stage"):
        raise InputError(f"{folder} is a stage of a cascade, which needs the answer of another network; use 3d_fullres")
    return found


def _classes(dataset: Mapping[str, Any], folder: Path) -> int:
    labels = dataset.get("labels")
    if not isinstance(labels, dict) or not all(isinstance(value, int) for value in labels.values()):
        raise InputError(f"{folder / 'dataset.json'} has regions or no labels; a network of plain classes is needed")
    return len([name for name in labels if name != "ignore"])


def _schemes(
    configuration: Mapping[str, Any], plans: Mapping[str, Any], channels: int, folder: Path
) -> list[dict[str, Any]]:
    """How each channel is normalised, with the numbers that takes."""
    names, masked = configuration.get("normalization_schemes"), configuration.get("use_mask_for_norm") or []
    if not isinstance(names, list) or len(names) != channels or channels < 1:
        raise InputError(f"{folder / 'plans.json'} does not say how its {channels} channels are normalised")
    if any(masked):
        raise InputError(
            f"{folder} normalises over the voxels that are not 0, and noise leaves none at 0; train it on images with "
            "a background, or with use_mask_for_norm false"
        )
    if unknown := [name for name in names if name not in _SCHEMES]:
        raise InputError(f"{folder} normalises by {unknown[0]}; known are {', '.join(_SCHEMES)}")
    found = []
    for index, name in enumerate(names):
        scheme: dict[str, Any] = {"scheme": name}
        if name == "CTNormalization":
            about = plans["foreground_intensity_properties_per_channel"][str(index)]
            low, high = float(about["percentile_00_5"]), float(about["percentile_99_5"])
            scheme |= {"window": [(low + high) / 2, high - low], "mean": about["mean"], "std": about["std"]}
        found.append(scheme)
    return found


def _build(configuration: Mapping[str, Any], channels: int, classes: int, folder: Path) -> nn.Module:
    """The untrained network: only classes of the library, and layers of PyTorch, are named by a file."""
    require(_LIBRARY, "nnunet")
    about = configuration["architecture"]
    kind = _class(str(about.get("network_class_name")), (f"{_LIBRARY}.architectures.",), folder)
    arguments = dict(about.get("arch_kwargs") or {})
    for name in about.get("_kw_requires_import") or []:
        if arguments.get(name) is not None:
            arguments[name] = _class(str(arguments[name]), ("torch.nn.", f"{_LIBRARY}.building_blocks."), folder)
    try:
        with torch.random.fork_rng(devices=[]):
            network: nn.Module = kind(input_channels=channels, num_classes=classes, deep_supervision=False, **arguments)
    # Constructors check their arguments each in their own way.
    except Exception as error:
        raise InputError(f"the network of {folder} cannot be built: {type(error).__name__}: {brief(error)}") from error
    return network


def _class(name: str, homes: tuple[str, ...], folder: Path) -> type[nn.Module]:
    home, _, last = name.rpartition(".")
    found = None
    if name.startswith(homes):
        try:
            found = getattr(importlib.import_module(home), last, None)
        except ImportError:
            found = None
    if not (isinstance(found, type) and issubclass(found, nn.Module)):
        raise InputError(f"{folder / 'plans.json'} names {name!r:.120}, which is no layer of {' or '.join(homes)}")
    return found


def _notes(
    configuration: Mapping[str, Any], plans: Mapping[str, Any], order: Sequence[int], folds: Sequence[str]
) -> list[str]:
    """What the preprocessing of nnU-Net becomes here."""
    spacing = [float(one) for one in configuration.get("spacing") or []]
    steps = [spacing[list(order).index(axis)] for axis in (2, 1, 0)] if len(spacing) == 3 else spacing
    asked = ",".join(f"{one:g}" for one in steps)
    schemes = ", ".join(configuration["normalization_schemes"])
    notes = [
        f"nnU-Net: {', '.join(folds)} averaged, mirroring off; noise is added to the image after any resampling, and "
        f"{schemes} comes after the noise, inside the model; images are not cropped",
    ]
    if len(steps) == 3:
        notes.append(
            f"nnU-Net was trained at a spacing of {asked} mm: volumes of another need --resample {asked} (linear here, "
            "cubic splines in nnU-Net)"
        )
    if "ZScoreNormalization" in schemes or "RescaleTo01Normalization" in schemes:
        notes.append("nnU-Net does not clip intensities before it normalises: --percentiles 0,100 reads them so")
    return notes
