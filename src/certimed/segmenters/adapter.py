"""Any segmentation network as a model for certification: normalisation, padding, windows and output meaning inside."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from certimed.errors import InputError, ModelError, require
from certimed.models.identity import adapter_identity, behaviour_digest, libraries_of
from certimed.models.normalisation import check_channel_order
from certimed.models.sources import brief

OUTPUT_NAMES = ("logits", "probabilities", "binary logit", "binary probability")
"""What a network returns; it is stated by its file or by the caller, never guessed from values."""

_MULTIPLES = (1, 2, 4, 8, 16, 32)
_BINARY_THRESHOLDS = {"binary logit": 0.0, "binary probability": 0.5}


@dataclass(frozen=True)
class SlidingWindow:
    """How a large image is cut into overlapping windows (MONAI's sliding_window_inference).

    Attributes:
        size: window size, one number an axis or one for all.
        overlap: share of a window shared with its neighbour, 0 <= overlap < 1.
        mode: blending, ``"constant"`` or ``"gaussian"``.
        batch: windows a forward pass.

    Raises:
        InputError: a size below 1, an overlap out of range, an unknown mode.
    """

    size: int | tuple[int, ...]
    overlap: float = 0.25
    mode: str = "gaussian"
    batch: int = 4

    def __post_init__(self) -> None:
        sizes = (self.size,) if isinstance(self.size, int) else self.size
        if not sizes or min(sizes) < 1 or self.batch < 1:
            raise InputError(f"window size {self.size} and batch {self.batch} must be positive")
        if not 0 <= self.overlap < 1 or self.mode not in ("constant", "gaussian"):
            raise InputError(
                f"window overlap={self.overlap} must satisfy 0 <= overlap < 1, and mode={self.mode!r} must be "
                "'constant' or 'gaussian'"
            )


class Segmenter(nn.Module):
    """What a run asks of a segmentation network before it reads an image.

    Attributes:
        name: what to call the model in messages and reports.
        axes: space axes of the network's convolutions (2 of planes, 3 of volumes); None where it does not show.
        reading_window: ``(centre, width)`` that images must be read with, where the network was trained so; else None.
    """

    name: str
    axes: int | None = None
    reading_window: tuple[float, float] | None = None

    def check_axes(self, axes: int, item: str) -> None:
        """Refuse an image of so many space axes where the network's layers show that they take others.

        Raises:
            InputError: a plane for a network of volumes, or the reverse; it says what to do.
        """
        if self.axes is None or self.axes == axes:
            return
        if axes == 3:
            raise InputError(
                f"{self.name} is a network of planes, and {item} is a volume; certify its slices (--slices all in "
                "place of --volume)"
            )
        raise InputError(
            f"{self.name} is a network of volumes ({self.axes}-D), and {item} is a plane; give volumes, and read them "
            "whole (--volume)"
        )


class SegmentationModel(Segmenter):
    """A frozen network as a model for certification: float32 ``(B, C, *space)`` in [0, 1] -> ``(B, K, *space)``.

    The class of a pixel is the index of its highest score. Everything between the certified space and the scores
    happens here, so it is part of what is certified: one grey channel is repeated for a colour network, values are
    normalised by ``(x - mean) / std``, edges are padded by replication to a multiple of ``multiple_of`` and cropped
    away again (or the image is cut into windows). One binary channel ``s`` becomes the two scores ``(threshold, s)``.

    Args:
        network: returns a tensor ``(B, channels, *space)`` of the size of its input.
        num_classes: K, the background counted; 2 for the binary outputs.
        output: one of :data:`OUTPUT_NAMES`.
        in_channels: channels the network takes.
        mean, std: one value, or one a channel, in [0, 1] units.
        channel_order: ``"rgb"``, or ``"bgr"`` for networks trained on images that OpenCV read; images come as RGB, and
            mean and std are in the network's order.
        multiple_of: sizes the network needs are multiples of this.
        window: cut images into windows instead of padding them.
        name: what to call the model in messages and reports.
        configuration: for adapters: what built the network, where that and its weights decide all it answers. Without
            it the network's code is walked, and the identity not declared complete.
        state: for adapters: the weights under names that no library's version changes, where they are not the module's.
        libraries: distributions that built the network; default: found from its classes.
        notes, warnings: sentences to show; see the attributes.

    Attributes:
        identity: hex SHA-256 of all that changes the answers, as it was when this object was made; see
            :func:`certimed.models.behaviour_digest`.
        identity_complete: whether equal identities are declared to mean equal answers.
        libraries: distributions that built the network.
        notes: what a loader had to decide.
        warnings: what nothing says and a person should decide, such as an unknown normalisation.

    Raises:
        InputError: an unknown output or channel order, a number of classes that does not fit it, or mean and std that
            do not fit.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        network: nn.Module,
        *,
        num_classes: int,
        output: str,
        in_channels: int = 1,
        mean: float | Sequence[float] = 0.0,
        std: float | Sequence[float] = 1.0,
        channel_order: str = "rgb",
        multiple_of: int = 1,
        window: SlidingWindow | None = None,
        name: str = "network",
        configuration: Mapping[str, Any] | None = None,
        state: Mapping[str, Tensor] | None = None,
        libraries: Sequence[str] | None = None,
        notes: Sequence[str] = (),
        warnings: Sequence[str] = (),
    ) -> None:
        super().__init__()
        check_output(output)
        if num_classes < 2 or (output in _BINARY_THRESHOLDS and num_classes != 2):
            raise InputError(
                f"num_classes={num_classes} does not fit output={output!r}; count the background: 2 for a "
                "binary output, 2 or more otherwise"
            )
        if multiple_of < 1 or in_channels < 1:
            raise InputError(f"multiple_of={multiple_of} and in_channels={in_channels} must be positive")
        self.network = network.eval().requires_grad_(False)
        self.num_classes = num_classes
        self.output = output
        self.in_channels = in_channels
        self.channel_order = check_channel_order(channel_order, in_channels)
        self.axes = space_axes(network)
        self.multiple_of = multiple_of
        self.window = window
        self.name = name
        self.libraries = tuple(libraries_of(network) if libraries is None else libraries)
        self.notes, self.warnings = tuple(notes), tuple(warnings)
        self.register_buffer("mean", channel_values("mean", mean, in_channels), persistent=False)
        self.register_buffer("std", channel_values("std", std, in_channels), persistent=False)
        if bool((self.std <= 0).any()):
            raise InputError(f"std={std} must be positive")
        self.eval()
        self.identity, self.identity_complete = adapter_identity(network, self._about(), configuration, state)

    @property
    def normalisation(self) -> dict[str, Any]:
        """Mean, std and channel order, for the record; plain JSON types."""
        return {"mean": self.mean.tolist(), "std": self.std.tolist(), "channel_order": self.channel_order}

    def with_source(self, digest: str) -> SegmentationModel:
        """This model as code has left it, with the digest of that code in its :attr:`identity`."""
        self.identity = behaviour_digest(self.network, {**self._about(), "source": digest})
        self.identity_complete = False
        return self

    def _about(self) -> dict[str, Any]:
        names = ("num_classes", "output", "in_channels", "multiple_of", "window", "normalisation")
        return {name: getattr(self, name) for name in names}

    def extra_repr(self) -> str:
        """Settings shown by ``repr``."""
        return f"name={self.name!r}, num_classes={self.num_classes}, output={self.output!r}, window={self.window}"

    def forward(self, x: Tensor) -> Tensor:
        """Scores ``(B, num_classes, *space)`` of images ``(B, C, *space)``.

        Raises:
            ModelError: channels that do not fit, or a network output of another shape than promised.
        """
        if x.shape[1] == 1 and self.in_channels > 1:
            x = x.expand(-1, self.in_channels, *[-1] * (x.ndim - 2))
        if x.shape[1] != self.in_channels:
            raise ModelError(
                f"{self.name} takes {self.in_channels} channels, but the image has {x.shape[1]}; convert the image"
            )
        axes = [1] * (x.ndim - 2)
        if self.channel_order == "bgr":
            x = x.flip(1)
        x = (x - self.mean.view(1, -1, *axes)) / self.std.view(1, -1, *axes)
        scores = self._windowed(x) if self.window is not None else self._padded(x)
        channels = 1 if self.output in _BINARY_THRESHOLDS else self.num_classes
        wanted = (x.shape[0], channels, *x.shape[2:])
        if tuple(scores.shape) != wanted:
            raise ModelError(
                f"{self.name} returned {tuple(scores.shape)} where output={self.output!r} with {self.num_classes} "
                f"classes means {wanted}; state the output and the number of classes of this network"
            )
        if self.output in _BINARY_THRESHOLDS:
            scores = torch.cat([torch.full_like(scores, _BINARY_THRESHOLDS[self.output]), scores], dim=1)
        return scores

    def _run(self, x: Tensor) -> Tensor:
        try:
            scores = self.network(x)
        except ModelError:
            raise
        # The network may be anyone's, and raise anything, most often at sizes it was not made for.
        except Exception as error:
            raise ModelError(
                f"{self.name} fails on input {tuple(x.shape)} ({type(error).__name__}: {brief(error)}); check its "
                "channels and sizes (multiple_of)"
            ) from error
        if not isinstance(scores, Tensor) or scores.shape[2:] != x.shape[2:]:
            got = tuple(scores.shape) if isinstance(scores, Tensor) else type(scores).__name__
            raise ModelError(
                f"{self.name} returned {got} for an input {tuple(x.shape)}; it must return one tensor of the same size"
            )
        return scores

    def _padded(self, x: Tensor) -> Tensor:
        missing = [-size % self.multiple_of for size in x.shape[2:]]
        if not any(missing):
            return self._run(x)
        before = [pad // 2 for pad in missing]
        # functional.pad counts axes from the last one.
        pads = [value for pad, start in zip(reversed(missing), reversed(before)) for value in (start, pad - start)]
        scores = self._run(functional.pad(x, pads, mode="replicate"))
        for axis, (start, size) in enumerate(zip(before, x.shape[2:]), start=2):
            scores = scores.narrow(axis, start, size)
        return scores

    def _windowed(self, x: Tensor) -> Tensor:
        window = self.window
        assert window is not None
        scores: Tensor = require("monai.inferers", "segment").sliding_window_inference(
            x, window.size, window.batch, self._run, overlap=window.overlap, mode=window.mode
        )
        return scores


def space_axes(network: nn.Module) -> int | None:
    """Space axes that a network's first convolution takes; None where it has none."""
    for part in network.modules():
        if isinstance(part, nn.modules.conv._ConvNd) and not isinstance(part, nn.Conv1d | nn.ConvTranspose1d):
            return len(part.kernel_size)
    return None


def from_module(network: nn.Module, *, num_classes: int, output: str, **settings: object) -> SegmentationModel:
    """Any ``nn.Module`` as a segmenter; ``settings`` are those of :class:`SegmentationModel`."""
    return SegmentationModel(network, num_classes=num_classes, output=output, **settings)  # type: ignore[arg-type]


def check_output(output: str) -> str:
    """Return the name, or raise InputError if it is none of :data:`OUTPUT_NAMES`."""
    if output not in OUTPUT_NAMES:
        raise InputError(f"output={output!r} is unknown; state one of {', '.join(map(repr, OUTPUT_NAMES))}")
    return output


def required_output(output: str | None, what: str) -> str:
    """Return the name, or raise InputError if it is missing or none of :data:`OUTPUT_NAMES`."""
    if output is None:
        raise InputError(
            f"output is missing: {what} does not say what its network returns; state 'logits', 'probabilities', "
            "'binary logit' or 'binary probability'"
        )
    return check_output(output)


def needed_multiple(network: nn.Module, channels: int) -> int:
    """The least power of two whose odd multiple as size the network answers at that size; 1 if none up to 32.

    Networks that halve and double their maps answer other sizes with an error, or with a mask of another size.
    """
    axes = space_axes(network) or 2
    for multiple in _MULTIPLES:
        # An odd multiple, so that no larger power divides it; large enough for 5 halvings. Volumes are costly.
        side = 64 + multiple if axes == 2 or multiple == _MULTIPLES[-1] else 32 + multiple
        space = (side,) * axes
        try:
            with torch.inference_mode():
                if network(torch.zeros(1, channels, *space)).shape[2:] == space:
                    return multiple
        # Networks refuse sizes each in their own way, or answer something else than a tensor.
        except Exception:
            continue
    return 1


def channel_values(name: str, values: float | Sequence[float], channels: int) -> Tensor:
    """One float32 value a channel; raises InputError if their number does not fit."""
    tensor = torch.as_tensor(values, dtype=torch.float32).flatten()
    if tensor.numel() not in (1, channels):
        raise InputError(f"{name} has {tensor.numel()} values for {channels} channels; give one, or one a channel")
    return tensor.expand(channels).clone()
