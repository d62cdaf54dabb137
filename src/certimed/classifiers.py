"""Any PyTorch classifier as a model for certification: its size, normalisation and class names inside."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from certimed.errors import InputError, ModelError
from certimed.models.identity import behaviour_digest, libraries_of
from certimed.models.sources import brief
from certimed.operators import Geometry
from certimed.usercode import UserModel, input_channels, is_user_code, load_user_model
from certimed.vlm import VisionLanguageModel, load
from certimed.vlm.loading import checked_device
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
        resize: ``"exact"`` (both edges), ``"shortest"`` (then centre crop), ``"longest"`` (then pad) or ``"none"``.
        interpolation: ``"bilinear"`` or ``"bicubic"``, antialiased.
        name: what to call the model in messages.

    Attributes:
        num_classes: K, found by running the network on a grey image.
        identity: hex SHA-256 of weights, settings and the walked network, as they were when this object was made; see
            :func:`certimed.models.behaviour_digest`.
        identity_complete: False, as the network is someone's code.
        libraries: distributions of the network's classes.

    Raises:
        InputError: settings that contradict each other or the network.
        ModelError: the network fails on a grey image, answers differently when asked twice, or does not return
            ``(B, K)`` with K of 2 or more.
    """

    identity_complete = False

    def __init__(
        self,
        network: nn.Module,
        *,
        input_shape: tuple[int, int, int],
        class_names: Sequence[str] | None = None,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
        resize: Literal["exact", "shortest", "longest", "none"] = "exact",
        interpolation: Literal["bilinear", "bicubic"] = "bilinear",
        name: str = "classifier",
    ) -> None:
        super().__init__()
        channels, height, width = input_shape
        self.preparation = Preprocess(
            (height, width),
            tuple(mean) if mean is not None else (0.0,) * channels,
            tuple(std) if std is not None else (1.0,) * channels,
            resize=resize,
            interpolation=interpolation,
            channels=channels,
        )
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
        self.libraries = libraries_of(network)
        self.identity = self._digest(None)

    def extra_repr(self) -> str:
        """Settings shown by ``repr``."""
        return f"name={self.name!r}, input_shape={self.input_shape}, num_classes={self.num_classes}"

    @property
    def device(self) -> torch.device:
        """Where the weights are; the CPU for a network without any."""
        return next((tensor.device for tensor in self.network.parameters()), torch.device("cpu"))

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
        normalised = self.preparation.normalise(x)
        try:
            scores = self.network(normalised)
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
        self.identity = self._digest(digest)
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

    def _digest(self, source: str | None) -> str:
        about = {"kind": "classifier", "class_names": self.class_names, "preparation": self.preparation}
        return behaviour_digest(self.network, {**about, "source": source})


def load_classifier(
    spec: str, device: str | torch.device = "cpu", *, allow_code: bool = False, size: tuple[int, int] | None = None
) -> VisionLanguageModel | ClassificationModel:
    """What classifies images: a vision-language model by name (:func:`certimed.vlm.load`), or your own code.

    Args:
        spec: any name :func:`certimed.vlm.load` knows, or ``python:module:factory``, whose factory returns an
            ``nn.Module`` of scores, a :class:`ClassificationModel`, or a ``VisionLanguageModel``.
        device: where the model runs.
        allow_code: consent to run the code; see :mod:`certimed.usercode`.
        size: ``(H, W)`` images are resized to, for a bare ``nn.Module``, which does not say it. Its channels are those
            of its first convolution, else 3.

    Returns:
        the model, frozen, in eval mode. The identity of one made by code covers its weights and the digest of the
        module's source file.

    Raises:
        InputError: as :func:`certimed.usercode.load_user_model`, or a size missing or out of place.
        ModelError: as :class:`ClassificationModel`.
    """
    place = checked_device(device)
    if not is_user_code(spec):
        _refuse_size(spec, size)
        return load(spec, place)
    user = load_user_model(spec, allow_code=allow_code)
    made = user.model
    if isinstance(made, VisionLanguageModel):
        _refuse_size(spec, size)
        return _identified(made, spec, user).to(place)
    if isinstance(made, ClassificationModel):
        _refuse_size(spec, size)
        made.name = spec
        return made.with_source(user.source_sha256).to(place)
    if not isinstance(made, nn.Module):
        kind = type(made).__name__
        raise InputError(f"{spec} returned {kind}; return an nn.Module or a certimed.ClassificationModel")
    if size is None:
        raise InputError(
            f"{spec} does not say how large its images are; add --size HEIGHTxWIDTH, e.g. --size 224x224, or return a "
            "certimed.ClassificationModel"
        )
    model = ClassificationModel(made, input_shape=(input_channels(made), *size), name=spec)
    return model.with_source(user.source_sha256).to(place)


def load_prompted(spec: str, device: str | torch.device = "cpu", *, allow_code: bool = False) -> VisionLanguageModel:
    """As :func:`load_classifier` where prompts are learnt: vision-language models only.

    Raises:
        InputError: as there, or a plain classifier, which reads no prompt.
    """
    if not is_user_code(spec):
        return load(spec, device)
    place, user = checked_device(device), load_user_model(spec, allow_code=allow_code)
    if not isinstance(user.model, VisionLanguageModel):
        raise InputError(f"{spec} returned a plain classifier, which reads no prompt; name a vision-language model")
    return _identified(user.model, spec, user).to(place)


def _identified(model: VisionLanguageModel, spec: str, user: UserModel) -> VisionLanguageModel:
    about = {"identity": model.identity, "source": user.source_sha256}
    model.identity, model.identity_complete = behaviour_digest(model, about), False
    model.name = spec
    return model


def _refuse_size(spec: str, size: tuple[int, int] | None) -> None:
    if size is not None:
        raise InputError(f"--size {size[0]}x{size[1]}: {spec} states its own input size; leave --size out")
