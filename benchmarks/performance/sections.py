"""What is measured, one file of results a section: a section whose file fits the settings is not measured again."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from benchmarks.home import Places, write_result
from benchmarks.performance import classification, engines, growth, processes, profiles, segmentation
from benchmarks.performance.recordings import PUBLISHED_SIGMAS, record, recording_path, runs
from benchmarks.performance.replay import compare
from benchmarks.performance.settings import Scale
from benchmarks.timing import machine

RECORDED_SETS = ("demo", "lc25000")


@dataclass(frozen=True)
class Plan:
    """Everything a run needs to know."""

    scale: Scale
    places: Places
    art_python: str | None = None


def recorded(plan: Plan) -> dict[str, Any]:
    """Budgets over full runs recorded on the demo model, and on the study model where it is."""
    scale, places = plan.scale, plan.places
    for name in RECORDED_SETS:
        if name == "demo" or (places.models / f"clip_{name}" / "split.json").is_file():
            record(name, places, images=scale.recorded, n0=scale.n0, n=scale.n, sigmas=PUBLISHED_SIGMAS)
    kept = [name for name in RECORDED_SETS if recording_path(places.results, name).exists()]
    return compare(((name, run) for name in kept for run in runs(recording_path(places.results, name))), scale.replays)


def study(plan: Plan) -> dict[str, Any]:
    """Budgets over runs that the studies' counts make likely, for every image of the studies."""
    path = profiles.collect(plan.places.models, plan.places.results)
    return compare(profiles.likely_runs(path, plan.scale.n0, plan.scale.n, plan.scale.every), 1)


SECTIONS: dict[str, Callable[[Plan], dict[str, Any]]] = {
    "study": study,
    "recorded": recorded,
    "engines": lambda plan: engines.engines(plan.scale),
    "loop": lambda plan: classification.loop(plan.scale),
    "demo": lambda plan: classification.demo_shares(plan.scale, plan.places),
    "segmentation": lambda plan: segmentation.loop(plan.scale),
    "statistics": lambda plan: segmentation.statistics(plan.scale),
    "art": lambda plan: processes.art(plan.scale, plan.art_python),
    "memory": lambda plan: processes.memory(plan.scale),
    "images": lambda plan: classification.images(plan.scale, plan.places),
    "verdicts": lambda plan: classification.verdicts(plan.scale, plan.places),
    "growth": lambda plan: growth.growth(plan.scale, plan.places),
}


# What of the scale decides a section's result; the rest may change without measuring it again.
DECIDES: dict[str, tuple[str, ...]] = {
    "study": ("n0", "n", "every"),
    "recorded": ("n0", "n", "recorded", "replays"),
    "engines": ("repeats", "clip", "engine_side"),
    "loop": ("repeats", "clip", "clip_samples"),
    "demo": ("repeats", "n"),
    "segmentation": ("repeats", "side", "mask_n"),
    "statistics": ("repeats", "statistics_sides", "mask_n"),
    "art": ("repeats", "n0", "n"),
    "memory": ("memory_n",),
    "images": ("n0", "n", "demo_images", "demo_sigmas"),
    "verdicts": ("n0", "verdict_images", "verdict_n", "demo_sigmas"),
    "growth": ("repeats", "growth_n", "sizes", "classes", "prompts", "growth_samples"),
}


def measure(plan: Plan, names: Sequence[str], again: Sequence[str] = ()) -> Iterator[str]:
    """Measure what is not there yet; yields the name of each section measured."""
    for name in names:
        path = section_path(plan.places.results, name)
        if name not in again and fits(name, path, plan):
            continue
        begin = time.perf_counter()
        about = machine()
        result = SECTIONS[name](plan)
        content = {
            "section": name,
            "settings": _settings(plan.scale),
            "machine": about,
            "seconds": round(time.perf_counter() - begin, 1),
            "result": result,
        }
        write_result(path, content)
        yield name


def fits(name: str, path: Path, plan: Plan) -> bool:
    """Whether a section's file was made with these settings; one that lacked the other toolbox waits for it."""
    if not path.exists():
        return False
    content = json.loads(path.read_text(encoding="utf-8"))
    waiting = "missing" in content["result"] and plan.art_python is not None
    wanted, before = _settings(plan.scale), content["settings"]
    return not waiting and all(before.get(field) == wanted[field] for field in ("name", *DECIDES[name]))


def load_results(results: Path) -> dict[str, dict[str, Any]]:
    """All sections measured so far."""
    found = {}
    for name in SECTIONS:
        path = section_path(results, name)
        if path.exists():
            found[name] = json.loads(path.read_text(encoding="utf-8"))
    return found


def section_path(results: Path, name: str) -> Path:
    """The file of a section."""
    return results / f"performance_{name}.json"


def _settings(scale: Scale) -> dict[str, Any]:
    plain: dict[str, Any] = json.loads(json.dumps(asdict(scale)))
    return plain
