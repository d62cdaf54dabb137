"""Classifiers made of a vision-language model and text features: logits are logit scale times cosine similarity."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from certimed.errors import InputError
from certimed.models.identity import combined, is_complete
from certimed.vlm.protocol import VisionLanguageModel

_TEXT_BATCH = 256


def cosine_logits(image_features: Tensor, text_features: Tensor, logit_scale: float) -> Tensor:
    """``logit_scale * cos``: ``(B, D)`` and ``(K, D)``, neither normalised -> ``(B, K)``; differentiable in both.

    Computed in float32 at least, under autocast too: cosines of different classes are close to each other.
    """
    kind = torch.promote_types(torch.promote_types(image_features.dtype, text_features.dtype), torch.float32)
    with torch.autocast(image_features.device.type, enabled=False):
        images = functional.normalize(image_features.to(kind), dim=-1)
        return logit_scale * images @ functional.normalize(text_features.to(kind), dim=-1).T


class PromptedClassifier(nn.Module):
    """A frozen vision-language model with one fixed text feature for each class: ``x -> logits``.

    Any function of the noisy image alone is a legal base classifier for randomized smoothing; this one is, because its
    text features were fixed before the image was seen. Use it as ``model`` of ``SmoothedClassifier``.

    Attributes:
        vlm: the model.
        text_features: float ``(K, D)``, normalised.
        identity, identity_complete: of the model with these text features; they are results, so another number of
            threads may round them, and the identity, differently.
    """

    text_features: Tensor

    def __init__(self, vlm: VisionLanguageModel, text_features: Tensor) -> None:
        """Keep the features, normalised and detached.

        Args:
            vlm: a frozen vision-language model.
            text_features: float ``(K, D)``, D the model's ``embedding_dim``; need not be normalised.

        Raises:
            InputError: the features have another shape, or are not finite and non-zero.
        """
        super().__init__()
        if text_features.ndim != 2 or text_features.shape[0] < 1 or text_features.shape[1] != vlm.embedding_dim:
            raise InputError(
                f"text_features must have shape (classes, {vlm.embedding_dim}) for {vlm.name}; got "
                f"{tuple(text_features.shape)}"
            )
        norms = text_features.detach().norm(dim=-1)
        if not bool(torch.isfinite(norms).all()) or bool((norms == 0).any()):
            raise InputError(f"text_features for {vlm.name} must be finite and non-zero; check the prompts or weights")
        self.vlm = vlm
        features = functional.normalize(text_features.detach().to(vlm.device), dim=-1)
        self.register_buffer("text_features", features, persistent=False)
        self.identity = combined("prompted", vlm.identity, features)
        self.identity_complete = is_complete(vlm)
        self.eval()  # a new module is born in training mode, which certification refuses

    def logits(self, image_features: Tensor) -> Tensor:
        """Scores from image features (cached ones, say): float ``(B, D)``, not normalised -> ``(B, K)``."""
        return cosine_logits(image_features, self.text_features, self.vlm.logit_scale)

    def forward(self, x: Tensor) -> Tensor:
        """Images in the certified space, float ``(B, C, H, W)`` -> logits ``(B, K)``.

        Raises:
            ModelError: ``x`` does not have the model's input shape.
        """
        return self.logits(self.vlm.encode_image(x))

    def extra_repr(self) -> str:
        """Shown by ``repr``."""
        return f"model={self.vlm.name}, classes={len(self.text_features)}, logit_scale={self.vlm.logit_scale:.4g}"


class ZeroShotClassifier(PromptedClassifier):
    """CLIP's zero-shot classifier (Radford et al., ICML 2021): class names put into templates, features averaged.

    For each class the features of all its filled-in templates are normalised, averaged and normalised again. They are
    computed once, here, and never again.

    Attributes:
        class_names: as given, stripped.
        templates: as given.
    """

    def __init__(self, vlm: VisionLanguageModel, class_names: Sequence[str], templates: str | Sequence[str]) -> None:
        """Encode every class.

        Args:
            vlm: a frozen vision-language model.
            class_names: K distinct names in words, K >= 1.
            templates: one template or several, each with ``{}`` where the class name goes.

        Raises:
            InputError: an empty or repeated name or template, a template without ``{}``, or a text too long.
        """
        names = checked_class_names(class_names)
        patterns = checked_templates(templates)
        super().__init__(vlm, zero_shot_features(vlm, names, patterns))
        self.class_names = names
        self.templates = patterns


@torch.no_grad()
def zero_shot_features(vlm: VisionLanguageModel, class_names: Sequence[str], templates: Sequence[str]) -> Tensor:
    """Normalised mean of the normalised features of each class's texts -> float ``(K, D)``."""
    texts = [template.replace("{}", name) for name in class_names for template in templates]
    parts = [vlm.encode_texts(texts[i : i + _TEXT_BATCH]) for i in range(0, len(texts), _TEXT_BATCH)]
    features = functional.normalize(torch.cat(parts), dim=-1).view(len(class_names), len(templates), -1)
    return functional.normalize(features.mean(dim=1), dim=-1)


def checked_class_names(class_names: Sequence[str]) -> tuple[str, ...]:
    """The names, stripped.

    Raises:
        InputError: no names, a plain string in place of a list, or an empty or repeated name.
    """
    if isinstance(class_names, str):
        raise InputError(f"class_names must be a list of names, not the single string {class_names!r}")
    names = tuple(name.strip() for name in class_names)
    if not names:
        raise InputError("class_names is empty; name at least one class")
    if "" in names:
        raise InputError(f"class_names has an empty name at position {names.index('')}; every class needs words")
    repeated = sorted({name for name in names if names.count(name) > 1})
    if repeated:
        raise InputError(f"class_names repeats {', '.join(map(repr, repeated))}; every class needs a name of its own")
    return names


def checked_templates(templates: str | Sequence[str]) -> tuple[str, ...]:
    """The templates as a tuple.

    Raises:
        InputError: no templates, one without exactly one ``{}``, or a repeated one.
    """
    patterns = (templates,) if isinstance(templates, str) else tuple(templates)
    if not patterns:
        raise InputError("templates is empty; give at least one, such as 'a photo of {}'")
    for pattern in patterns:
        if pattern.count("{}") != 1:
            raise InputError(f"the template {pattern!r} must contain {{}} exactly once, where the class name goes")
    repeated = sorted({pattern for pattern in patterns if patterns.count(pattern) > 1})
    if repeated:
        raise InputError(f"templates repeats {', '.join(map(repr, repeated))}; list each template once")
    return patterns
