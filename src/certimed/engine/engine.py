"""The one loop: noisy copies of an image, through streams and heads, into integers, into certificates.

CERTIFY of Cohen et al. (ICML 2019), for any target, any noise law, any budget, and many methods on the same noise:

1. selection: every method tallies the n0 selection samples, which fix what its claim will be about (a class; a class
   for each pixel; nothing, where that is known);
2. estimation: fresh samples, never seen by the selection, are tallied until the budget's session stops;
3. the session's outcome is the claim, and claim, integers and circumstances are the certificate.

Several targets may be certified at once: their tallies see the same scores, and each has a session of its own.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import groupby
from typing import Any, Generic, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from certimed.budgets import Budget, Outcome, Session
from certimed.certificates import (
    END_TO_END,
    Certificate,
    Circumstances,
    NativeRadius,
    Samples,
    VariedSettings,
    certificate_of,
    collect_provenance,
)
from certimed.engine.contract import COPIES, FAR, OneAnswer, check_one_answer, unchanged
from certimed.engine.copies import Model, Progress, as_image, check_samples, model_device
from certimed.engine.embeddings import EmbeddingCache
from certimed.engine.methods import Method, Scores, Subject
from certimed.engine.streams import PLAIN, ModelStream, Stream
from certimed.engine.throughput import check_batch_size
from certimed.errors import InputError
from certimed.noise import NoiseKey, NoiseLaw, NoiseStream, content_id
from certimed.operators import Geometry
from certimed.targets import Tally, Target

K = TypeVar("K", bound=Certificate[Any])


@dataclass(frozen=True)
class Result(Generic[K]):
    """One method on one image.

    Attributes:
        certificates: what was proved: one certificate, or one for each tau; of each target, in their order.
        clean: the answer to the image without noise, by the same (tuned) method: a class, or a mask.
        selection: what the selection samples chose for the first target: counts of all classes, or the candidate mask.
        tuning_seconds: spent before counting, for this image alone: tuning and, for the first method that needs them,
            embedding its copies.
    """

    certificates: tuple[K, ...]
    clean: Any
    selection: Any
    tuning_seconds: float

    @property
    def certificate(self) -> K:
        """The one certificate."""
        (only,) = self.certificates
        return only


@dataclass(frozen=True)
class Origin:
    """Where an image came from, for its certificates.

    Attributes:
        intensity: how the file's intensities became [0, 1].
        decoders: what read the file, with versions.
        geometry: the linear map that prepared it, where it is known.
        settings: what is varied instead of pixels, where noise is on settings.
        pixels: hex SHA-256 of the raw image that the settings are applied to.
    """

    intensity: str | None = None
    decoders: Mapping[str, str] | None = None
    geometry: Geometry | None = None
    settings: VariedSettings | None = None
    pixels: str | None = None


class Engine:
    """Certifies images with several methods on the same noise.

    Each certificate holds on its own at its own alpha.

    Args:
        streams: by name.
        methods: each names one of the streams.
        law: the noise.
        space: where the noise is added, see :mod:`certimed.certificates.scope`.
        device: where images and noise live.
        cache: embeddings are kept here until ``cache.forget(item)``; None: nothing is kept.
        share_copies: whether methods may want the same embedded copies twice, so that they are kept while an image is
            certified.

    Raises:
        InputError: no methods, repeated names, or a stream that is missing.
    """

    def __init__(
        self,
        streams: Mapping[str, Stream],
        methods: Sequence[Method],
        law: NoiseLaw,
        *,
        space: str,
        device: torch.device,
        cache: EmbeddingCache | None = None,
        share_copies: bool = False,
    ) -> None:
        names = [method.name for method in methods]
        if not names or len(set(names)) != len(names):
            raise InputError(f"methods are named {names}; give at least one, each with a name of its own")
        self.streams, self.methods, self.law = dict(streams), tuple(methods), law
        self.space, self.device, self.cache, self.share_copies = space, device, cache, share_copies
        self.one_answer: dict[str, OneAnswer] = {}

    @classmethod
    def alone(
        cls,
        model: Model,
        law: NoiseLaw,
        *,
        identity: str | None = None,
        scope: str = END_TO_END,
        space: str,
        device: torch.device | str | None = None,
    ) -> Engine:
        """The engine of one model whose scores are the answer: stream and method are both named :data:`PLAIN`.

        Args:
            model: a batch of copies -> scores.
            law, space: as of the class.
            identity: of the model; None: found.
            scope: of the certificates.
            device: default: that of the model's first parameter, else the CPU.
        """
        place = torch.device(device) if device is not None else model_device(model)
        streams = {PLAIN: ModelStream(model, identity=identity)}
        return cls(streams, [Scores(PLAIN, scope=scope)], law, space=space, device=place)

    def with_streams(self, streams: Mapping[str, Stream]) -> Engine:
        """This engine with streams that are bound to one image; what was seen of its models is shared."""
        bound = copy.copy(self)
        bound.streams = dict(streams)
        return bound

    def identities(self) -> dict[str, str | None]:
        """Identity of each method's model, as its certificates carry it."""
        return {method.name: method.identity(self.streams) for method in self.methods}

    def subject(
        self,
        image: Tensor | NDArray[np.floating],
        item: str | None,
        seed: int,
        batch_size: int | None,
        target: Target[Any],
        seen: tuple[int, ...] | None = None,
    ) -> Subject:
        """One image, checked; ``item`` defaults to its content hash; ``seen``: shape of what models see, if another."""
        tensor = as_image(image, self.device)
        size = batch_size if batch_size is not None else target.batch_size(seen or tuple(tensor.shape), self.device)
        cache = self.cache if self.cache is not None else EmbeddingCache() if self.share_copies else None
        name = item if item is not None else content_id(tensor)
        return Subject(tensor, name, seed, self.law, size, self.streams, cache, keep=self.cache is not None)

    def run(
        self,
        image: Tensor | NDArray[np.floating],
        targets: Target[Any] | Sequence[Target[Any]],
        budget: Budget,
        *,
        n0: int,
        alpha: float = 1e-3,
        seed: int = 0,
        item_id: str | None = None,
        batch_size: int | None = None,
        origin: Origin | None = None,
        clean: bool = True,
        progress: Progress | None = None,
    ) -> dict[str, Result[Any]]:
        """Certify one image with every method, for every target.

        Under a budget each method has looks and a stop of its own for each target, and counts no sample after it;
        copies are drawn and embedded until the last of a stream has stopped. Certificates of different targets hold
        each at its own alpha.

        Args:
            image: ``(C, *space)`` floats in [0, 1].
            targets: what is certified.
            budget: how many estimation samples, and when to look; it must serve every target.
            n0: selection samples; unused by targets that select nothing.
            alpha: failure probability of each method's claims, all looks together.
            seed, item_id: the key of the noise; without an id the image's content hash is its id, so the certificate
                does not depend on what else is certified, nor in which order.
            batch_size: samples a forward pass; does not change the noise.
            origin: for the record.
            clean: also answer the image without noise.
            progress: called with the number of samples after each batch.

        Returns:
            by method name, in order.

        Raises:
            InputError: an impossible argument. ModelError: a model or method broke its contract.
        """
        wanted = (targets,) if not isinstance(targets, Sequence) else tuple(targets)
        check_samples(n0=n0 if any(one.selects for one in wanted) else None, n=budget.cap, alpha=alpha)
        check_batch_size(batch_size)
        about_settings = None if origin is None else origin.settings
        seen = None if about_settings is None else about_settings.image
        subject = self.subject(image, item_id, seed, batch_size, wanted[0], seen)
        shape, device = tuple(subject.image.shape), self.device
        for target in wanted:
            for method in self.methods:
                target.check(shape, budget, alpha, self.law, method.views_of)
        with torch.no_grad(), unchanged(subject.image):
            tuned = {method.name: _timed_head(method, subject) for method in self.methods}
            heads = {name: head for name, (head, _) in tuned.items()}
            self._check(subject, heads, wanted[0])
            answers = self._clean(subject, heads, wanted[0]) if clean else {}
            tally = _Tally(subject, heads, wanted, progress)
            selected: dict[Ask, Any] = {}
            for sharing in self._sharing(len(wanted)):
                tallies = {ask: wanted[ask.target].select(shape, device, n0) for ask in sharing}
                if selecting := [ask for ask in sharing if wanted[ask.target].selects]:
                    tally(selecting, tallies, "selection", n0, 0)
                selected |= {ask: one.counts() for ask, one in tallies.items()}
            sessions = {
                ask: wanted[ask.target].start(one, shape, budget, alpha, self.law, ask.method.views_of)
                for ask, one in selected.items()
            }
            counted: dict[Ask, Tally] = {}
            for sharing in self._sharing(len(wanted)):
                tallies = {ask: wanted[ask.target].estimate(selected[ask], device, budget.cap) for ask in sharing}
                _estimate(tally, sharing, tallies, sessions)
                counted |= tallies
        found = {}
        for method in self.methods:
            about = self._about(method, subject, origin or Origin())
            made: list[Certificate[Any]] = []
            for place, target in enumerate(wanted):
                ask = Ask(method, place)
                counts = counted[ask].counts()
                outcome = sessions[ask].finish(counts)
                made += [
                    certificate_of(
                        claim,
                        law=self.law,
                        samples=_samples(n0 if target.selects else 0, budget, own),
                        share=share,
                        about=about,
                        native=_native(about.placement.real_radius(claim.radius), origin),
                    )
                    for claim, share, own in target.claims(selected[ask], counts, outcome, alpha, self.law)
                ]
            chosen = selected[Ask(method, 0)]
            found[method.name] = Result(tuple(made), answers.get(method.name), chosen, tuned[method.name][1])
        return found

    @staticmethod
    def each_once(images: Iterable[tuple[str, Any]]) -> Iterator[tuple[str, Any]]:
        """Pass ``(item id, image)`` pairs on; InputError where an id comes twice (its noise would too)."""
        seen: set[str] = set()
        for item, image in images:
            if item in seen:
                raise InputError(f"item id {item!r} comes twice; ids name the noise and must be unique in a run")
            seen.add(item)
            yield item, image

    def counts(
        self, subject: Subject, target: Target[Any], phase: str, n: int, progress: Progress | None = None
    ) -> Any:
        """What n samples of a phase give the first method, e.g. for a prediction.

        Of a target that selects nothing these are its estimation counts, else the selection's.
        """
        ask, shape = Ask(self.methods[0], 0), tuple(subject.image.shape)
        with torch.no_grad(), unchanged(subject.image):
            heads = {ask.method.name: ask.method.head(subject)}
            self._check(subject, heads, target)
            tally = target.select(shape, self.device, n)
            if not target.selects:
                tally = target.estimate(tally.counts(), self.device, n)
            _Tally(subject, heads, (target,), progress)([ask], {ask: tally}, phase, n, 0)
        return tally.counts()

    def _check(self, subject: Subject, heads: Mapping[str, Any], target: Target[Any]) -> None:
        """Once a method: does one input have one answer? Recorded in :attr:`one_answer`."""
        unchecked = [method for method in self.methods if method.name not in self.one_answer]
        if not unchecked:
            return
        key = NoiseKey(subject.seed, subject.item, "probe")
        copies = min(COPIES, max(2, subject.batch_size))
        origin = self.law.origin(subject.image)
        near = _Drawn(origin, self.law, key, copies)
        far = _Drawn(origin, self.law, key, copies, start=copies, times=float(FAR))
        embedded: dict[str, list[Tensor]] = {}
        for method in unchecked:
            shared = sum(other.stream == method.stream for other in unchecked) > 1
            views = _replayed(method, subject, embedded) if shared else partial(method.view, subject)

            def scores(x: Tensor, method: Method = method, views: Callable[[Tensor], Tensor] = views) -> Tensor:
                found: Tensor = target.compared(heads[method.name](views(x)))
                return found

            dtype = method.encoder(self.streams).dtype
            self.one_answer[method.name] = check_one_answer(scores, near, far, dtype=dtype, largest=subject.batch_size)

    def _clean(self, subject: Subject, heads: Mapping[str, Any], target: Target[Any]) -> dict[str, Any]:
        views: dict[str, Tensor] = {}
        found: dict[str, Any] = {}
        image = self.law.clean(self.law.origin(subject.image)).unsqueeze(0)
        for method in self.methods:
            if method.stream not in views:
                views[method.stream] = method.view(subject, image)
            answer = target.answer(heads[method.name](views[method.stream]))[0].cpu()
            found[method.name] = int(answer) if answer.ndim == 0 else answer.numpy()
        return found

    def _sharing(self, targets: int) -> list[list[Ask]]:
        """Methods that share embedded copies, each with every target, in order."""
        streams: dict[str, list[Ask]] = {}
        for method in self.methods:
            streams.setdefault(method.stream, []).extend(Ask(method, place) for place in range(targets))
        return list(streams.values())

    def _about(self, method: Method, subject: Subject, origin: Origin) -> Circumstances:
        encoder = method.encoder(self.streams)
        rounded = "" if subject.cache is None or subject.cache.dtype == torch.float32 else ", embeddings in float16"
        provenance = collect_provenance(
            str(self.device),
            dtype=encoder.arithmetic + rounded,
            model=method.identity(self.streams),
            intensity=origin.intensity,
            pixels=origin.pixels or content_id(subject.image).removeprefix("sha256:"),
            decoders=origin.decoders,
            libraries=encoder.libraries,
        )
        return Circumstances(
            item=subject.item,
            method=method.name,
            seed=int(subject.seed),
            shape=tuple(subject.image.shape),
            space=self.space,
            scope=method.scope,
            provenance=provenance,
            placement=self.law.placement(subject.image),
            views=method.views_of,
            settings=origin.settings,
        )


@dataclass(frozen=True)
class _Drawn:
    """Noisy copies of an image, each drawn when it is asked for, so that none is kept; ``times`` as much noise."""

    origin: Tensor
    law: NoiseLaw
    key: NoiseKey
    count: int
    start: int = 0
    times: float = 1.0

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> Tensor:
        if not 0 <= index < self.count:
            raise IndexError(index)
        place, law = self.origin.device, self.law
        noise = NoiseStream(self.key, tuple(self.origin.shape), place, start=self.start + index, law=law).draw(1)
        copy = law.noisy(self.origin, noise)[0]
        return copy if self.times == 1 else torch.lerp(law.clean(self.origin), copy, self.times)


@dataclass(frozen=True)
class Ask:
    """One method and the number of one target."""

    method: Method
    target: int


@dataclass(frozen=True)
class _Tally:
    """Counts, for every target, what methods of one stream answer to the same noisy copies."""

    subject: Subject
    heads: Mapping[str, Any]
    targets: Sequence[Target[Any]]
    progress: Progress | None

    def __call__(self, asks: Sequence[Ask], tallies: Mapping[Ask, Tally], phase: str, n: int, start: int) -> None:
        reading = any(self.targets[ask.target].reads_image for ask in asks)
        copies = self.subject.copies(phase, start) if reading else None
        for views in asks[0].method.views(self.subject, phase, n, start):
            seen = None if copies is None else copies(len(views))
            for method, own in groupby(asks, key=lambda ask: ask.method):
                scores = self.heads[method.name](views)
                for ask in own:
                    tallies[ask].add(scores, seen if self.targets[ask.target].reads_image else None)
            if self.progress is not None:
                self.progress(len(views))
            del views, scores, seen  # before the next ones are drawn: of volumes they are large


def _estimate(
    tally: _Tally,
    sharing: Sequence[Ask],
    tallies: Mapping[Ask, Tally],
    sessions: Mapping[Ask, Session[Any, Any]],
) -> None:
    """Draw for the methods of one stream, each up to its own stop.

    Sessions that wish for different numbers of samples get the smallest, and ask again.
    """
    running, drawn = list(sharing), 0
    while True:
        wanted = {ask: sessions[ask].next(tallies[ask].counts()) for ask in running}
        running = [ask for ask in running if wanted[ask]]
        if not running:
            return
        more = min(wanted[ask] for ask in running)
        tally(running, tallies, "estimation", more, drawn)
        drawn += more


def _replayed(method: Method, subject: Subject, embedded: dict[str, list[Tensor]]) -> Callable[[Tensor], Tensor]:
    """``method.view``, computed once for all methods of a stream: each check asks for the same inputs in turn."""
    if method.stream in embedded:
        known = iter(embedded[method.stream])
        return lambda x: next(known)
    kept = embedded.setdefault(method.stream, [])

    def views(x: Tensor) -> Tensor:
        kept.append(method.view(subject, x))
        return kept[-1]

    return views


def _timed_head(method: Method, subject: Subject) -> tuple[Any, float]:
    begin = time.perf_counter()
    return method.head(subject), time.perf_counter() - begin


def _samples(n0: int, budget: Budget, outcome: Outcome[Any]) -> Samples:
    assert outcome.proved_at is not None  # a session that ran to its stop has looked
    return Samples(int(n0), outcome.n, str(budget), outcome.looks, outcome.proved_at, outcome.stop)


def _native(radius: float, origin: Origin | None) -> NativeRadius | None:
    return None if origin is None or origin.geometry is None else NativeRadius.of(radius, origin.geometry)
