"""Any PyTorch classifier as a model for certification: its size, normalisation and class names inside."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn

from certimed.errors import InputError, ModelError
from certimed.models.identity import adapter_identity, behaviour_digest, libraries_of
from certimed.models.normalisation import check_channel_order
from certimed.models.sources import brief
from certimed.operators import Geometry
from certimed.vlm.preprocessing import Preprocess


class ClassificationModel(nn.Module):
    """A frozen classifier as a model for certification: float32 ``(B, C, H, W)`` in [0, 1] -> scores ``(B, K)``.

    The class of an image is the index of its highest score, so logits and probabilities serve alike. Images are
    resized in float (:meth:`preprocess`), noise is added to the result, and normalisation comes after it, inside the
    certified model: ``sigma`` and radii are in [0, 1] units of ``input_shape``.

    Args:
        network: a module ``(B, C, H, W) -> (B, K)``; each row must depend on its image alone.
        input_shape: ``(C, H, W)`` it takes, C 1 or 3.
        class_names: names in the order of its scores, or None where they are those of the data set, in its order.
        mean, std: one value a channel, in [0, 1] units, where the network expects normalised input.
        channel_order: ``"rgb"``, or ``"bgr"`` for networks trained on images that OpenCV read; images come as RGB, and
            mean and std are in the network's order.
        resize: ``"exact"`` (both edges), ``"shortest"`` (then centre crop), ``"longest"`` (then pad) or ``"none"``.
        edge, crop_offset: see :class:`~certimed.vlm.Preprocess`.
        interpolation: ``"bilinear"`` or ``"bicubic"``, antialiased.
        name: what to call the model in messages.
        configuration, state, libraries, notes, warnings: for adapters, as of
            :class:`~certimed.segmenters.SegmentationModel`.

    Attributes:
        num_classes: K, found by running the network on a grey image.
        identity: hex SHA-256 of weights, settings and the walked network, as they were when this object was made; see
            :func:`certimed.models.behaviour_digest`.
        identity_complete: whether equal identities are declared to mean equal answers; False of someone's code.
        libraries: distributions of the network's classes.
        notes, warnings: what a loader had to decide, and what nothing says and a person should decide.

    Raises:
        InputError: settings that contradict each other or the network.
        ModelError: the network fails on a grey image, answers differently when asked twice, or does not return
            ``(B, K)`` with K of 2 or more.
    """

    def __init__(
        self,
        network: nn.Module,
        *,
        input_shape: tuple[int, int, int],
        class_names: Sequence[str] | None = None,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
        channel_order: str = "rgb",
        resize: Literal["exact", "shortest", "longest", "none"] = "exact",
        edge: int = 0,
        crop_offset: Literal["floor", "round"] = "floor",
        interpolation: Literal["bilinear", "bicubic"] = "bilinear",
        name: str = "classifier",
        configuration: Mapping[str, Any] | None = None,
        state: Mapping[str, Tensor] | None = None,
        libraries: Sequence[str] | None = None,
        notes: Sequence[str] = (),
        warnings: Sequence[str] = (),
    ) -> None:
        super().__init__()
        channels, height, width = input_shape
        self.preparation = Preprocess(
            (height, width),
            _a_channel(mean if mean is not None else (0.0,), channels),
            _a_channel(std if std is not None else (1.0,), channels),
            resize=resize,
            edge=edge,
            interpolation=interpolation,
            channels=channels,
            crop_offset=crop_offset,
        )
        self.channel_order = check_channel_order(channel_order, channels)
        self.network = network.eval().requires_grad_(False)
        self.name = name
        self.class_names = None if class_names is None else tuple(class_names)
        self.input_shape = self.preparation.shape
        self.eval()
        self.num_classes = self._probed()
        if self.class_names is not None and len(set(self.class_names)) != self.num_classes:
            raise InputError(
                f"class_names has {len(set(self.class_names))} different names and {name} returns {self.num_classes} "
                "scores; give one name a score, in their order"
            )
        self.libraries = tuple(libraries_of(network) if libraries is None else libraries)
        self.notes, self.warnings = tuple(notes), tuple(warnings)
        self.identity, self.identity_complete = adapter_identity(network, self._about(), configuration, state)

    def extra_repr(self) -> str:
        """Settings shown by ``repr``."""
        return f"name={self.name!r}, input_shape={self.input_shape}, num_classes={self.num_classes}"

    @property
    def device(self) -> torch.device:
        """Where the weights are; the CPU for a network without any."""
        return next((tensor.device for tensor in self.network.parameters()), torch.device("cpu"))

    @property
    def normalisation(self) -> dict[str, Any]:
        """Mean, std and channel order, for the record; plain JSON types."""
        mean, std = list(self.preparation.mean), list(self.preparation.std)
        return {"mean": mean, "std": std, "channel_order": self.channel_order}

    def preprocess(self, pixels: Tensor) -> Tensor:
        """One image ``(C, H, W)`` in [0, 1] at native resolution -> float32 ``input_shape``: linear, never 8 bits."""
        return self.preparation(pixels)

    def geometry(self, shape: tuple[int, ...]) -> Geometry:
        """The linear map :meth:`preprocess` applies to native images ``(C, H, W)`` of this shape."""
        return self.preparation.geometry(shape)

    def forward(self, x: Tensor) -> Tensor:
        """Scores ``(B, K)`` of images in the certified space.

        Raises:
            ModelError: the network fails, or does not return one tensor ``(B, K)``.
        """
        normalised = self.preparation.normalise(x.flip(1) if self.channel_order == "bgr" else x)
        try:
            scores = self.network(normalised)
        except ModelError:
            raise
        # The network is the user's: it may raise anything.
        except Exception as error:
            raise ModelError(
                f"{self.name} fails on input {tuple(x.shape)} ({type(error).__name__}: {brief(error)}); "
                "check its input shape, channels first"
            ) from error
        if not isinstance(scores, Tensor) or scores.ndim != 2 or len(scores) != len(x):
            got = tuple(scores.shape) if isinstance(scores, Tensor) else type(scores).__name__
            raise ModelError(
                f"{self.name} returned {got} for input {tuple(x.shape)}; a classifier returns one tensor of scores "
                f"({len(x)}, classes)"
            )
        return scores

    def encode_image(self, x: Tensor) -> Tensor:
        """The scores, as the embedding of an image: what is built on encoders serves classifiers too."""
        return self.forward(x)

    def with_source(self, digest: str) -> ClassificationModel:
        """This model as code has left it, with the digest of that code in its :attr:`identity`."""
        self.identity = behaviour_digest(self.network, {**self._about(), "source": digest})
        self.identity_complete = False
        return self

    def _probed(self) -> int:
        grey = torch.full((2, *self.input_shape), 0.5, device=self.device)
        with torch.no_grad():
            first, second = self.forward(grey), self.forward(grey)
        if first.shape[1] < 2:
            raise ModelError(
                f"{self.name} returns {first.shape[1]} score an image, which leaves nothing to decide; return a score "
                "for each class (for one logit s: torch.stack([-s, s], dim=1))"
            )
        if not torch.allclose(first.float(), second.float(), rtol=1e-3, atol=1e-5, equal_nan=True):
            raise ModelError(
                f"{self.name} answers differently when asked twice; only a fixed function can be certified, so take "
                "random parts (dropout, sampling) out of its forward pass"
            )
        return int(first.shape[1])

    def _about(self) -> dict[str, Any]:
        names = ("class_names", "preparation", "channel_order")
        return {"kind": "classifier", **{name: getattr(self, name) for name in names}}


def _a_channel(values: Sequence[float], channels: int) -> tuple[float, ...]:
    return tuple(values) * channels if len(values) == 1 else tuple(values)
