"""Several prompt methods certified on the same noise, for little more than the price of one."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from certimed.acceleration import Acceleration
from certimed.budgets import Budget, Session, as_budget
from certimed.certificates import MODEL_INPUT, NATIVE, ClassCertificate
from certimed.classification import certificate_from_counts, check_samples
from certimed.embeddings import EmbeddingCache, ImageEncoder
from certimed.errors import InputError, ModelError
from certimed.noise import item_id as content_id
from certimed.prompts.methods import Head, Method, Subject
from certimed.sampling import Progress, as_image, check_scores, check_sigma
from certimed.vlm.native import NativeModel
from certimed.vlm.protocol import FeatureModel

Counts = NDArray[np.int64]


@dataclass(frozen=True)
class MethodResult:
    """One method on one image.

    Attributes:
        certificate: what was proved; its counts give the noisy accuracy.
        clean_prediction: class of the image without noise, with the same (tuned) prompt.
        selection: counts of the selection samples.
        tuning_seconds: spent before counting, for this image alone: tuning and, for the first method that needs them,
            embedding its copies.
    """

    certificate: ClassCertificate
    clean_prediction: int
    selection: tuple[int, ...]
    tuning_seconds: float


class PromptComparison:
    """Certifies an image with several prompt methods; noisy copies are embedded once for all of them.

    Each certificate holds on its own at its own alpha. Reporting only the best of m methods is a choice made on the
    estimation noise; :meth:`certify_best` pays for it.

    Args:
        vlm: the frozen model; for methods of a plain classifier, that classifier. In a
            :class:`~certimed.vlm.NativeModel`, images are certified at native resolution.
        methods: see :func:`certimed.prompts.prompt_methods`.
        sigma: noise level in [0, 1] units.
        denoiser: module ``x -> x`` made for this sigma; needed by methods on the stream "denoised": the same noise,
            then the denoiser, then the encoder (denoised smoothing, Salman et al., NeurIPS 2020).
        acceleration: how denoiser and image encoder run, see :mod:`certimed.acceleration`; recorded as the dtype.
        cache: embeddings are kept here for further comparisons until ``cache.forget(item)``. Without one they are
            kept while an image is being certified only.

    Raises:
        InputError: no methods, repeated names, class counts that differ, or a missing denoiser.
    """

    def __init__(
        self,
        vlm: FeatureModel,
        methods: Sequence[Method],
        sigma: float,
        *,
        denoiser: nn.Module | None = None,
        acceleration: Acceleration | None = None,
        cache: EmbeddingCache | None = None,
    ) -> None:
        names = [method.name for method in methods]
        if not names or len(set(names)) != len(names):
            raise InputError(f"methods are named {names}; give at least one, each with a name of its own")
        classes = {method.num_classes for method in methods}
        if len(classes) != 1:
            raise InputError(
                f"the methods have different numbers of classes ({sorted(classes)}); compare one class list"
            )
        if denoiser is None and any(method.stream == "denoised" for method in methods):
            raise InputError("method 'denoised' needs a denoiser; pass one made for this sigma as denoiser")
        self.vlm = vlm
        self.methods = tuple(methods)
        self.num_classes = classes.pop()
        self.sigma = check_sigma(sigma)
        self.encoders = {"plain": ImageEncoder(vlm, acceleration=acceleration)}
        if denoiser is not None:
            self.encoders["denoised"] = ImageEncoder(vlm, denoiser, acceleration=acceleration)
        self.cache = cache
        self.space = NATIVE if isinstance(vlm, NativeModel) else MODEL_INPUT

    def __repr__(self) -> str:
        names = ", ".join(method.name for method in self.methods)
        return f"PromptComparison({self.vlm.name}, methods={names}, sigma={self.sigma:g})"

    def model_ids(self) -> dict[str, str]:
        """Identity of each method's model, as its certificates carry it."""
        return {method.name: method.model_id(self.encoders) for method in self.methods}

    def certify(self, image: Tensor | NDArray[np.floating], **settings: object) -> dict[str, ClassCertificate]:
        """The certificates of :meth:`run` alone, by method name; arguments as there."""
        results = self.run(image, **settings)  # type: ignore[arg-type]
        return {name: result.certificate for name, result in results.items()}

    def run(
        self,
        image: Tensor | NDArray[np.floating],
        *,
        n0: int = 100,
        budget: Budget | int | str | None = None,
        n: int | None = None,
        alpha: float = 1e-3,
        seed: int = 0,
        item_id: str | None = None,
        batch_size: int | None = None,
        bound: str = "one-sided",
        intensity: str | None = None,
        progress: Progress | None = None,
    ) -> dict[str, MethodResult]:
        """Certify one image with every method; arguments as in ``SmoothedClassifier.certify``.

        A method with fixed text features gets exactly the counts ``SmoothedClassifier`` gives it for the same seed,
        item and batch size. Under a budget each method has looks and a stop of its own, and counts no sample after it;
        copies are drawn and embedded until the last method of a stream has stopped.

        Returns:
            by method name, in order.

        Raises:
            InputError: an impossible argument. ModelError: a model or method broke its contract.
        """
        allowed = as_budget(budget, n)
        check_samples(n0=n0, n=allowed.cap, alpha=alpha)
        tensor = as_image(image, self.vlm.device)
        item = item_id if item_id is not None else content_id(tensor)
        cache = self.cache if self.cache is not None else EmbeddingCache()
        subject = Subject(tensor, item, seed, self.sigma, batch_size, cache, self.encoders, keep=self.cache is not None)
        heads, seconds = self._heads(subject)
        clean = self._clean(subject, heads)
        tally = _Tally(subject, heads, self.num_classes, progress)
        streams = self._streams()
        selection = {name: counts for sharing in streams for name, counts in tally(sharing, "selection", n0).items()}
        sessions = {name: allowed.start(counts, alpha, self.sigma, bound) for name, counts in selection.items()}
        estimation: dict[str, Counts] = {}
        for sharing in streams:
            estimation |= _estimate(tally, sharing, sessions)
        results = {}
        for method in self.methods:
            certificate = certificate_from_counts(
                selection[method.name],
                estimation[method.name],
                budget=allowed,
                outcome=sessions[method.name].finish(estimation[method.name]),
                item=item,
                alpha=alpha,
                sigma=self.sigma,
                seed=seed,
                shape=tuple(tensor.shape),
                bound=bound,
                device=str(tensor.device),
                dtype=_precision(method.encoder(subject), cache),
                model_id=method.model_id(self.encoders),
                intensity=intensity,
                scope=method.scope,
                space=self.space,
                notes=method.notes,
            )
            chosen = tuple(int(count) for count in selection[method.name])
            results[method.name] = MethodResult(certificate, clean[method.name], chosen, seconds[method.name])
        return results

    def certify_best(
        self, image: Tensor | NDArray[np.floating], *, alpha: float = 1e-3, **settings: object
    ) -> tuple[str, ClassCertificate]:
        """The method with the largest radius, and its certificate.

        Guarantee: each of the m methods is bounded at alpha/m (Bonferroni), so all m certificates hold together with
        probability at least 1 - alpha, and so does the one chosen after seeing them. The certificate carries the total
        alpha and a note.
        """
        count = len(self.methods)
        found = self.certify(image, alpha=alpha / count, **settings)
        name = max(found, key=lambda candidate: found[candidate].radius)
        note = (
            f"Chosen as the largest radius of {count} methods ({', '.join(found)}): each was bounded at alpha/{count} "
            f"= {alpha / count:.6g} (Bonferroni), alpha {alpha:g} being the total."
        )
        return name, replace(found[name], alpha=float(alpha), notes=(*found[name].notes, note))

    def _heads(self, subject: Subject) -> tuple[dict[str, Head], dict[str, float]]:
        heads, seconds = {}, {}
        for method in self.methods:
            begin = time.perf_counter()
            heads[method.name] = method.head(subject)
            seconds[method.name] = time.perf_counter() - begin
        return heads, seconds

    def _clean(self, subject: Subject, heads: Mapping[str, Head]) -> dict[str, int]:
        found: dict[str, int] = {}
        views: dict[str, Tensor] = {}
        with torch.no_grad():
            for method in self.methods:
                if method.stream not in views:
                    views[method.stream] = method.clean_view(subject)
                found[method.name] = int(heads[method.name](views[method.stream]).argmax(dim=1))
        return found

    def _streams(self) -> list[list[Method]]:
        """The methods that share embeddings, in order."""
        streams: dict[str, list[Method]] = {}
        for method in self.methods:
            streams.setdefault(method.stream, []).append(method)
        return list(streams.values())


@dataclass(frozen=True)
class _Tally:
    """Counts the classes that methods of one stream give to the same noisy copies."""

    subject: Subject
    heads: Mapping[str, Head]
    num_classes: int
    progress: Progress | None

    def __call__(self, sharing: Sequence[Method], phase: str, n: int, start: int = 0) -> dict[str, Counts]:
        device = self.subject.image.device
        counts = {m.name: torch.zeros(self.num_classes, dtype=torch.int64, device=device) for m in sharing}
        finite = torch.ones((), dtype=torch.bool, device=device)
        with torch.no_grad():
            for views in sharing[0].views(self.subject, phase, n, start):
                for method in sharing:
                    scores = check_scores(self.heads[method.name](views), (len(views), self.num_classes))
                    counts[method.name] += torch.bincount(scores.argmax(dim=1), minlength=self.num_classes)
                    finite &= torch.isfinite(scores).all()
                if self.progress is not None:
                    self.progress(len(views))
        if not bool(finite):
            raise ModelError("a prompt method returned scores that are not finite; no class can be counted")
        return {name: count.cpu().numpy() for name, count in counts.items()}


def _estimate(tally: _Tally, sharing: Sequence[Method], sessions: Mapping[str, Session]) -> dict[str, Counts]:
    """Estimation counts of the methods of one stream, each up to its own stop.

    Sessions that wish for different numbers of samples get the smallest, and ask again.
    """
    counts = {method.name: np.zeros(tally.num_classes, dtype=np.int64) for method in sharing}
    running, drawn = list(sharing), 0
    while True:
        wanted = {method.name: sessions[method.name].next(counts[method.name]) for method in running}
        running = [method for method in running if wanted[method.name]]
        if not running:
            return counts
        more = min(wanted[method.name] for method in running)
        for name, fresh in tally(running, "estimation", more, drawn).items():
            counts[name] = counts[name] + fresh
        drawn += more


def _precision(encoder: ImageEncoder, cache: EmbeddingCache) -> str:
    rounded = "" if cache.dtype == torch.float32 else ", embeddings rounded to float16"
    return encoder.arithmetic + rounded
