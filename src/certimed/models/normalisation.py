"""How a network's input was normalised in training: stated, taken from what its files say, or asked for."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch import Tensor

from certimed.errors import InputError
from certimed.models.sources import read_json

IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
"""Mean and std of ImageNet's training images in [0, 1] units, red, green, blue."""

NORMALISE = (
    "imagenet, none, encoder, MEAN;STD (one value a channel, by commas), or a JSON file with mean and std; with ;bgr "
    "behind it for a network trained on images that OpenCV read"
)

_BGR = ";bgr"
_LARGEST = 2.0  # a mean or std above it is of grey levels 0 to 255


@dataclass(frozen=True)
class Normalisation:
    """``(x - mean) / std`` on x in [0, 1], channels in this order, and where the figures come from.

    Attributes:
        mean, std: one value, or one a channel, in [0, 1] units.
        channel_order: ``"rgb"`` or ``"bgr"``.
        notes: what was taken from where, in sentences to show.
        warnings: what nothing says and a person should decide, in sentences to show.
    """

    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (1.0,)
    channel_order: str = "rgb"
    notes: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()

    @property
    def settings(self) -> dict[str, Any]:
        """Arguments of :class:`~certimed.segmenters.SegmentationModel`."""
        return vars(self).copy()


def choose(
    settings: dict[str, Any],
    channels: int,
    *,
    stored: tuple[Tensor | None, Tensor | None] = (None, None),
    own: Normalisation | None = None,
    encoder: Callable[[], Mapping[str, Any]] | None = None,
    hint: str | None = None,
) -> Normalisation:
    """The normalisation of a network; takes ``normalise``, ``mean``, ``std`` and ``channel_order`` out of ``settings``.

    In this order: what is stated; buffers stored beside the weights; what the model's files say; the image as it is,
    with a warning where ``hint`` gives a reason to doubt it.

    Args:
        settings: of a loader; ``normalise`` is one of :data:`NORMALISE`.
        channels: the network's.
        stored: mean and std found in the checkpoint.
        own: what the model's configuration says.
        encoder: parameters of the encoder's own preparation, as segmentation_models_pytorch gives them.
        hint: why the input may have been normalised in training, or None.

    Raises:
        InputError: statements that contradict each other, do not fit the channels, or cannot be looked up.
    """
    stated = settings.pop("normalise", None)
    mean, std, order = (settings.pop(name, None) for name in ("mean", "std", "channel_order"))
    if isinstance(stated, str) and stated.lower().endswith(_BGR):
        if order not in (None, "bgr"):
            raise InputError(f"normalise={stated!r} and channel_order={order!r} contradict each other; give one")
        stated, order = stated[: -len(_BGR)], "bgr"
    chosen = _chosen(stated, mean, std, channels, stored, own, encoder, hint)
    return chosen if order is None else replace(chosen, channel_order=order)


def _chosen(
    stated: object,
    mean: Any,
    std: Any,
    channels: int,
    stored: tuple[Tensor | None, Tensor | None],
    own: Normalisation | None,
    encoder: Callable[[], Mapping[str, Any]] | None,
    hint: str | None,
) -> Normalisation:
    held = _stored(*stored)
    if stated is not None and (mean is not None or std is not None):
        raise InputError(f"normalise={stated!r} and mean and std are given; give one of them")
    if mean is not None or std is not None:
        chosen = Normalisation(_tuple(0.0 if mean is None else mean), _tuple(1.0 if std is None else std))
    elif stated is not None:
        chosen = _named(str(stated), encoder)
    elif held is not None:
        return _fitting(held, channels)
    elif own is not None:
        return _fitting(own, channels)
    elif hint is not None:
        return Normalisation(
            warnings=(
                f"{hint}, and nothing says how its input was normalised: images in [0, 1] are passed as they are; if "
                "it was trained on normalised images its answers are wrong, so state normalise (imagenet, encoder or "
                "none) or mean and std",
            )
        )
    else:
        return Normalisation()
    other = held or own
    if other is not None and (other.mean, other.std) != (chosen.mean, chosen.std):
        text = f"the normalisation stated, {_words(chosen)}, is not the one stored with the weights, {_words(other)}"
        chosen = replace(chosen, warnings=(text,))
    return _fitting(chosen, channels)


def _named(stated: str, encoder: Callable[[], Mapping[str, Any]] | None) -> Normalisation:
    if stated == "none":
        return Normalisation()
    if stated == "imagenet":
        return Normalisation(*IMAGENET)
    if stated == "encoder":
        if encoder is None:
            raise InputError("normalise='encoder': only networks with a named encoder have one; give mean and std")
        found = encoder()
        high = float(max(found.get("input_range") or (0, 1)))
        order = str(found.get("input_space", "RGB")).lower()
        return Normalisation(_scaled(found["mean"], high), _scaled(found["std"], high), order)
    if ";" in stated:
        try:
            given = [tuple(map(float, part.split(","))) for part in stated.split(";")]
            mean, std = given
        except ValueError as error:
            raise InputError(
                f"normalise={stated!r} is not MEAN;STD; write one value a channel, e.g. "
                "0.485,0.456,0.406;0.229,0.224,0.225"
            ) from error
        return Normalisation(mean, std)
    path = Path(stated).expanduser()
    if not path.is_file():
        raise InputError(f"normalise={stated!r} is unknown; use {NORMALISE}")
    found = read_json(path, "mean and std")
    try:
        mean, std = (_tuple(found.get(name, found.get(f"image_{name}"))) for name in ("mean", "std"))
    except (TypeError, ValueError) as error:
        raise InputError(
            f"{path} holds no mean and std as numbers; write e.g. {{'mean': [0.5], 'std': [0.25]}}"
        ) from error
    return Normalisation(mean, std)


def _stored(mean: Tensor | None, std: Tensor | None) -> Normalisation | None:
    if mean is None or std is None:
        return None
    found, high = (mean.tolist(), std.tolist()), 1.0
    if max(found[0] + found[1]) > _LARGEST:
        high = 255.0
    chosen = Normalisation(_scaled(found[0], high), _scaled(found[1], high))
    units = "grey levels 0 to 255" if high > 1 else "[0, 1] units"
    note = f"{_words(chosen)} are those stored in the checkpoint, taken to be in {units}"
    return Normalisation(chosen.mean, chosen.std, "rgb", (note,))


def _fitting(chosen: Normalisation, channels: int) -> Normalisation:
    for name, values in (("mean", chosen.mean), ("std", chosen.std)):
        if len(values) not in (1, channels):
            raise InputError(
                f"{name} has {len(values)} values for {channels} channels; give one value, or one a channel"
            )
    return chosen


def _scaled(values: Any, high: float) -> tuple[float, ...]:
    return tuple(float(value) / high for value in values)


def _tuple(values: Any) -> tuple[float, ...]:
    return tuple(map(float, values)) if isinstance(values, list | tuple | Tensor) else (float(values),)


def _words(chosen: Normalisation) -> str:
    mean, std = (", ".join(f"{value:.6g}" for value in values) for values in (chosen.mean, chosen.std))
    return f"mean [{mean}] and std [{std}]"


def check_channel_order(order: str, channels: int) -> str:
    """Return it, or raise InputError unless it is ``"rgb"``, or ``"bgr"`` of a network of three channels."""
    if order not in ("rgb", "bgr") or (order == "bgr" and channels != 3):
        raise InputError(f"channel_order={order!r} must be 'rgb', or 'bgr' for a network of 3 channels")
    return order
