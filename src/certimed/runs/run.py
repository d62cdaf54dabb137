"""Run a request: certify every image into a run folder, here or by workers, and go on where it stopped."""

from __future__ import annotations

import os
from collections.abc import Callable, Generator, Iterable, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Protocol

import torch

from certimed.data import Dataset
from certimed.errors import InputError, ModelError
from certimed.executors import Executor, LocalExecutor, Lost
from certimed.runs.folder import RunFolder
from certimed.runs.job import Job
from certimed.runs.manifest import data_section
from certimed.runs.record import CERTIFIED, Record
from certimed.runs.sharding import Shard
from certimed.runs.spec import RunSpec

HOPELESS = 3
"""A run stops where model or settings fail on so many images, the first of all, for one reason."""


class Watcher(Protocol):
    """Told what a run is doing; every method may do nothing."""

    def start(self, images: int, copies: int, where: str) -> None:
        """So many images are to be done, each by at most so many noisy copies, on this device."""

    def image(self, item: str) -> None:
        """Work on an image begins (in this process only)."""

    def copies(self, done: int) -> None:
        """So many more noisy copies were done (in this process only)."""

    def record(self, record: Record) -> None:
        """An image is done and on disk."""

    def note(self, sentence: str) -> None:
        """Something a person may want to know."""


class Silent:
    """A :class:`Watcher` that does nothing."""

    def start(self, images: int, copies: int, where: str) -> None:
        """See :class:`Watcher`."""

    def image(self, item: str) -> None:
        """See :class:`Watcher`."""

    def copies(self, done: int) -> None:
        """See :class:`Watcher`."""

    def record(self, record: Record) -> None:
        """See :class:`Watcher`."""

    def note(self, sentence: str) -> None:
        """See :class:`Watcher`."""


def execute(
    spec: RunSpec | None,
    out: str | Path,
    *,
    resume: bool = False,
    retry_failed: bool = False,
    shard: str | None = None,
    workers: int = 1,
    executor: Executor | None = None,
    allow_code: bool = False,
    dataset: Dataset | None = None,
    job: Job | None = None,
    watcher: Watcher | None = None,
) -> RunFolder:
    """Certify every image of a request into a run folder.

    One bad image never ends a run: it becomes a failed record. A model that fails on each of the first three images for
    one reason does, as it would on all others. Each image is on disk before the next one starts, so a
    stop, however hard, loses at most the image in flight.

    Args:
        spec: what to run. None with ``resume``: what the folder was started with.
        out: new run folder; with ``resume``, the one to go on with.
        resume: go on with a run that stopped; a request that differs from the recorded one is refused, both values
            named.
        retry_failed: also do images again that failed before.
        shard: ``"I/N"``, for part I of N of the images; None: all, or whatever the resumed folder holds.
        workers: processes of this machine; 1 computes in this one. Several GPUs are dealt to them in turn, where the
            request names none.
        executor: instead of ``workers``, see :mod:`certimed.executors`.
        allow_code: consent to run the code of ``python:`` models.
        dataset: instead of opening the one that the spec names; here only, not with workers.
        job: the spec, loaded already.
        watcher: told what happens.

    Returns:
        the folder, open for reading.

    Raises:
        InputError: a setting that does not fit, a folder that cannot be used, a changed setting, model or data set.
        ModelError: the model fails on every image.
    """
    watch = watcher or Silent()
    before = RunFolder.open(out) if resume else None
    spec = _request(spec, before)
    work = job or spec.load(allow_code=allow_code, dataset=dataset)
    recorded = before.manifest.get("local", {}).get("batch_size") if before is not None else None
    if isinstance(recorded, int) and isinstance(spec.batch_size, str):
        work.use_batch_size(recorded)
    folder, part = _open(work, out, before, shard)
    crew = executor or (local_crew(work, workers) if workers > 1 else None)
    with folder:
        todo = remaining(part, folder, retry_failed=retry_failed)
        streams = len({method.stream for method in work.engine.methods})
        watch.start(len(todo), streams * ((spec.n0 or 0) + spec.cap), work.where)
        for warning in work.warnings:
            watch.note(warning)
        if folder.repaired:
            watch.note(f"an unfinished line of {folder.repaired} bytes was cut off; its image is done again")
        records = (
            _here(work.on(part), todo, watch)
            if crew is None
            else _by_workers(crew, replace(spec, batch_size=work.batch_size), part, todo, allow_code)
        )
        with closing(records):
            _write(records, folder, watch)
    return RunFolder.open(folder.path)


def _write(records: Iterable[Record], folder: RunFolder, watch: Watcher) -> None:
    """Each record on disk before the next image starts; ModelError once the first ones show that all would fail."""
    faults: list[str | None] = []
    for record in records:
        record.write_arrays(folder.path)
        folder.append(record)
        watch.record(record)
        if len(faults) < HOPELESS and (record.structural or record.status == CERTIFIED):
            faults.append(record.reason)
            _stop_if_hopeless(faults)


def local_crew(work: Job, workers: int) -> LocalExecutor:
    """Workers of this machine, each on a GPU of its own as far as there are some."""
    place = work.engine.device
    if place.type != "cuda" or (work.spec.device == str(place) and place.index is not None):
        return LocalExecutor(workers)
    visible = os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")
    found = torch.cuda.device_count()
    names = visible if len(visible) == found else [str(index) for index in range(found)]
    return LocalExecutor(workers, gpus=[names[index % found] for index in range(workers)])


def _stop_if_hopeless(faults: Sequence[str | None]) -> None:
    if len(faults) == HOPELESS and faults[0] is not None and len(set(faults)) == 1:
        raise ModelError(f"the run stopped, as every image fails for one reason: {faults[0]}; what was written is kept")


def remaining(dataset: Dataset, folder: RunFolder, *, retry_failed: bool = False) -> list[int]:
    """Positions of the images that still need work, in the order of the data set.

    Args:
        dataset: the data set of this folder (of its shard, if it holds one).
        folder: the run.
        retry_failed: take images that failed before as unfinished.
    """
    done = folder.finished(retry_failed=retry_failed)
    return [index for index, item in enumerate(dataset.ids) if item not in done]


def _request(spec: RunSpec | None, before: RunFolder | None) -> RunSpec:
    if spec is not None:
        return spec
    if before is None:
        raise InputError("there is no request to run; give a RunSpec, or resume a run folder")
    return RunSpec.from_dict(before.manifest.get("request"))


def _open(work: Job, out: str | Path, before: RunFolder | None, shard: str | None) -> tuple[RunFolder, Dataset]:
    """The locked folder, and the part of the data set it holds."""
    chosen = Shard.parse(shard) if shard is not None else (before.shard if before else None)
    dataset = work.dataset
    section = None if chosen is None else chosen.section(dataset.ids)
    part = dataset if chosen is None else dataset.subset(chosen.indices(dataset.ids))
    if before is None:
        work.check_settings()
        work.start_engine()
        manifest = work.manifest(data_section(dataset))
        local = {} if work.batch_size is None else {"local": {"batch_size": work.batch_size}}
        return RunFolder.create(out, {**manifest, **local}, shard=section), part
    manifest = work.manifest(data_section(dataset, before.manifest.get("data")))
    return RunFolder.resume(before.path, manifest, shard=section), part


def _here(work: Job, todo: list[int], watch: Watcher) -> Generator[Record]:
    for index in todo:
        watch.image(work.dataset.items[index].id)
        yield work.record(index, watch.copies)


def _by_workers(crew: Executor, spec: RunSpec, part: Dataset, todo: list[int], allow_code: bool) -> Generator[Record]:
    known = {part.items[index].id: part.items[index] for index in todo}
    for item, result in crew.run(Worker(spec, allow_code), list(known)):
        if isinstance(result, Lost):
            about = known[item]
            yield Record.failed(item, result.reason, label=about.label, group=about.group)
        else:
            yield result


class Worker:
    """What a worker does: load the request once, then certify items by id."""

    def __init__(self, spec: RunSpec, allow_code: bool) -> None:
        self.spec, self.allow_code = spec, allow_code

    def start(self) -> Callable[[str], Record]:
        """Load everything; returns the function that certifies one item."""
        job = self.spec.load(allow_code=self.allow_code)
        position = {item: index for index, item in enumerate(job.dataset.ids)}
        return lambda item: job.record(position[item])
