"""Where a run goes and who computes it: --out, --resume, --retry-failed, --shard, --workers, --executor, --address."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from certimed.cli import classify, inputs
from certimed.cli.console import err, image_progress
from certimed.data import Dataset
from certimed.errors import InputError
from certimed.executors import Executor, LocalExecutor, RayExecutor
from certimed.runs import Certifier, ClassificationWork, RunFolder, Shard, certify_with, data_section, remaining

EXECUTORS = ("local", "ray")
_OWN_OPTIONS = {"--out": 1, "--resume": 1, "--workers": 1, "--executor": 1, "--address": 1, "--retry-failed": 0}


@dataclass(frozen=True)
class Running:
    """What a person asked for; :meth:`checked` refuses what contradicts itself.

    Attributes:
        out: new run folder; exactly one of this and ``resume``.
        resume: run folder to go on with.
        retry_failed: do failed images again (with ``resume``).
        shard: ``"I/N"``, or None for the whole data set, or for whatever the resumed folder holds.
        workers: 1 computes in this process.
        executor: ``"local"`` or ``"ray"``.
        address: of the Ray cluster.
    """

    out: Path | None = None
    resume: Path | None = None
    retry_failed: bool = False
    shard: str | None = None
    workers: int = 1
    executor: str = "local"
    address: str | None = None

    def checked(self) -> Running:
        """Refuse contradictions with InputError before any work."""
        if (self.out is None) == (self.resume is None):
            raise InputError("give either --out NEW_FOLDER for a new run or --resume RUN to go on with one")
        if self.retry_failed and self.resume is None:
            raise InputError("--retry-failed is for a run that has failed images; add --resume RUN")
        inputs.one_of("--executor", self.executor, EXECUTORS)
        if self.address is not None and self.executor != "ray":
            raise InputError(f"--address {self.address} is of a Ray cluster; add --executor ray")
        if self.shard is not None:
            Shard.parse(self.shard)
        return self

    def crew(self) -> Executor | None:
        """The executor, or None where this process computes itself."""
        if self.executor == "ray":
            return RayExecutor(self.workers, address=self.address)
        return None if self.workers == 1 else LocalExecutor(self.workers)

    def batch_size(self, asked: int | str | None, probe: Callable[[], int]) -> int | None:
        """What was asked for; for ``"auto"`` what the resumed run has recorded, else what ``probe`` finds."""
        if not isinstance(asked, str):
            return asked
        if self.resume is not None:
            local = RunFolder.open(self.resume).manifest.get("local")
            recorded = local.get("batch_size") if isinstance(local, dict) else None
            if isinstance(recorded, int) and recorded > 0:
                return recorded
        size = probe()
        err.print(f"batch size {size} pays here", style="dim", highlight=False)
        return size

    def open(
        self,
        dataset: Dataset,
        describe: Callable[[dict[str, Any]], Mapping[str, Any]],
        *,
        batch_size: int | None = None,
    ) -> tuple[RunFolder, Dataset]:
        """Create or resume the run folder.

        Args:
            dataset: the whole data set of the run (after ``--limit``).
            describe: the manifest, given its ``data`` part.
            batch_size: in use, for the record; it is no setting, so shards may differ in it.

        Returns:
            the locked folder, and the part of the data set it holds.

        Raises:
            InputError: see :class:`RunFolder`; names any changed setting, model or data.
        """
        before = None if self.resume is None else RunFolder.open(self.resume)
        shard = Shard.parse(self.shard) if self.shard is not None else (before.shard if before else None)
        section = None if shard is None else shard.section(dataset.ids)
        part = dataset if shard is None else dataset.subset(shard.indices(dataset.ids))
        if before is None:
            assert self.out is not None
            local = {} if batch_size is None else {"local": {"batch_size": batch_size}}
            return RunFolder.create(self.out, {**describe(data_section(dataset)), **local}, shard=section), part
        manifest = describe(data_section(dataset, before.manifest.get("data")))
        folder = RunFolder.resume(before.path, manifest, shard=section)
        if folder.repaired:
            err.print(
                f"an unfinished line of {folder.repaired} bytes was cut off; its image is done again", highlight=False
            )
        return folder, part


def recorded_arguments(path: Path) -> list[str]:
    """The options a run was started with, so that ``certimed certify --resume RUN`` needs no others.

    Where results go and who computes is not taken over. Options that let a model run code are not either: they have to
    be given again by whoever resumes.

    Raises:
        InputError: no run folder, or one that ``certimed certify`` did not start.
    """
    arguments = RunFolder.open(path).manifest.get("arguments")
    if not isinstance(arguments, list) or not arguments or arguments[0] != "certify":
        raise InputError(f"{path} was not started by certimed certify; repeat its options beside --resume")
    return _without(tuple(str(one) for one in arguments[1:]), {**_OWN_OPTIONS, "--allow-code": 0})


def _without(arguments: Sequence[str], options: Mapping[str, int]) -> list[str]:
    kept, skip = [], 0
    for argument in arguments:
        name, _, value = argument.partition("=")
        if skip:
            skip -= 1
        elif name in options:
            skip = 0 if value else options[name]
        else:
            kept.append(argument)
    return kept


def run_classification(running: Running, prepare: dict[str, Any], settings: classify.Settings) -> int:
    """Certify into a new or resumed run folder, here or by workers, and print the result.

    Args:
        prepare: arguments of :func:`certimed.cli.classify.prepare`; workers repeat them.

    Returns:
        number of images that failed.
    """
    job = classify.prepare(**prepare)
    comparison = job.comparison(settings.sigma, settings.space, settings.acceleration)
    size = running.batch_size(settings.batch_size, lambda: classify.probe(job, comparison))
    folder, part = running.open(
        job.dataset, lambda data: classify.manifest(job, comparison, settings, data), batch_size=size
    )
    settings = replace(settings, batch_size=size)
    with folder:
        crew, again = running.crew(), running.retry_failed
        if crew is None:
            classify.certify(replace(job, dataset=part), comparison, settings, folder, retry_failed=again)
        else:
            work = ClassificationWork(make_classification, prepare=prepare, settings=settings)
            with image_progress(len(remaining(part, folder, retry_failed=again))) as advance:
                for record in certify_with(crew, work, part, folder, retry_failed=again):
                    classify.say_if_failed(record)
                    advance()
        return classify.report(job, settings, folder)


def make_classification(prepare: dict[str, Any], settings: classify.Settings) -> tuple[Dataset, Certifier]:
    """What a worker builds: see :class:`certimed.runs.ClassificationWork`; ``prepare`` are classify.prepare's."""
    job = classify.prepare(**prepare)
    comparison = job.comparison(settings.sigma, settings.space, settings.acceleration)
    return job.dataset, lambda image: classify.certify_image(job, comparison, settings, image)
