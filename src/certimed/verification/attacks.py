"""Do the attacks recorded in a run folder say what their counts and stored perturbations say?"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator, Mapping
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from certimed.errors import InputError
from certimed.integrity import BROKEN_ARCHIVE, digest, line_holds, strict_json
from certimed.verification.exact import upper_tail
from certimed.verification.laws import GRID_STEPS
from certimed.verification.shapes import (
    COUNT,
    HEX,
    INTEGER,
    LEVEL,
    LIST,
    NOT_NEGATIVE,
    OBJECT,
    POSITIVE,
    SCOPES,
    STRINGS,
    TEXT,
    Check,
    shape_faults,
)

LINES = "attacks.jsonl"
_ALMOST = 1e-9
_DRIFT = 1e-3  # by which a grid law may raise a p-value at most, all samples together; far above what it ever does


def _none_or(check: Check) -> Check:
    return (lambda value: value is None or check[0](value), f"{check[1]} or null")


def _word(*words: str) -> Check:
    return (lambda value: isinstance(value, str) and value in words, f"one of {', '.join(words)}")


ATTACK: dict[str, Check] = {
    "schema": _word("certimed/attack/1"),
    **dict.fromkeys(("item", "method", "label"), TEXT),
    **dict.fromkeys(("settings", "dice"), OBJECT),
    "radius": POSITIVE,
    "alpha": LEVEL,
    "scope": _word(*SCOPES),
    "reference": COUNT,
    "trials": LIST,
    "broken": _none_or(COUNT),
    "base_norm": _none_or(NOT_NEGATIVE),
    "perturbations": STRINGS,
    "sha256": HEX,
}
TRIAL: dict[str, Check] = {
    "goal": _word("class", "pixel", "dice"),
    "radius": POSITIVE,
    "norm": NOT_NEGATIVE,
    "judged": OBJECT,
}
JUDGED: dict[str, Check] = {
    "status": _word("kept", "abstained", "broken"),
    "answer": COUNT,
    "p_value": _none_or(NOT_NEGATIVE),
    "counts": LIST,
    "start": INTEGER,
    "dice": LIST,
}
SETTINGS: dict[str, Check] = {
    "radii": LIST,
    **dict.fromkeys(("steps", "copies", "restarts", "bisections", "n"), COUNT),
    "reach": POSITIVE,
    "alpha": LEVEL,
    "seed": INTEGER,
    "clip": (lambda value: isinstance(value, bool), "true or false"),
    "search": _word("gradient", "grid"),
}


def attack_faults(folder: Path, settings_digest: str, noise: object) -> Iterator[tuple[str, str]]:
    """Every false statement of ``attacks.jsonl`` as (where, what); nothing where there is no such file.

    Checked: the seal of each line; that the attacked certificate is in the run; every PREDICT of a class from its
    counts, with exact p-values; which trial broke the answer at the smallest norm; digests and norms of the stored
    perturbations. What only a model can tell (that the counts are its own) is for
    :func:`certimed.attacks.judge_again`.

    Args:
        folder: the run.
        settings_digest: of its settings, to which lines are sealed.
        noise: the law's name in the request, which says in what units perturbations are stored.
    """
    path = folder / LINES
    if not path.exists():
        return
    certificates = _certificates(folder)
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        yield LINES, f"it cannot be read ({error})"
        return
    if lines[-1]:
        yield LINES, "its last line is unfinished (an attack that was stopped; go on with it)"
    for number, line in enumerate(lines[:-1], 1):
        where = f"{LINES} line {number}"
        if not line_holds(line, settings_digest):
            yield where, "it was changed after it was written, or belongs to another run (sha256 does not match)"
        try:
            data = strict_json(line, "the line")
        except InputError as error:
            yield where, str(error)
            continue
        found = list(_shape_faults(data)) or list(_faults(data, certificates, folder, 255 * GRID_STEPS, noise))
        yield from ((where, fault) for fault in found)


def _shape_faults(data: Any) -> Iterator[str]:
    yield from (faults := list(shape_faults(data, ATTACK)))
    if faults:
        return
    yield from shape_faults(data["settings"], SETTINGS)
    for trial in data["trials"]:
        yield from (wrong := list(shape_faults(trial, TRIAL)))
        if not wrong:
            yield from shape_faults(trial["judged"], JUDGED)


def _faults(
    data: dict[str, Any], certificates: Mapping[Any, Any], folder: Path, levels: int, noise: object
) -> Iterator[str]:
    about = tuple(data[name] for name in ("item", "method", "radius", "scope"))
    if about not in certificates:
        yield f"the run has no certificate of {data['item']!r:.80} by {data['method']!r:.40} with this radius and scope"
    elif certificates[about] not in (None, data["reference"]):
        yield f"its certificate is of class {certificates[about]}, not {data['reference']}"
    spec, trials = data["settings"], data["trials"]
    planned = len(spec["radii"]) or 2 + spec["bisections"]
    # Masks with a truth are attacked for their Dice too.
    planned += (len(spec["radii"]) or 1) if data["dice"] else 0
    if not trials or len(trials) > planned:
        yield f"it has {len(trials)} trials, and its level is for {planned}"
    for place, trial in enumerate(trials):
        if trial["norm"] > trial["radius"]:
            yield f"trial {place} has norm {trial['norm']!r} outside its radius {trial['radius']!r}"
        if trial["goal"] == "class":
            yield from (f"trial {place}: {one}" for one in _predict_faults(trial["judged"], data, planned))
    broken = [(one["norm"], place) for place, one in enumerate(trials) if _breaks(one)]
    if data["broken"] != (min(broken)[1] if broken else None):
        yield f"broken={data['broken']!r} is not the trial that broke the answer with the smallest perturbation"
    yield from _perturbation_faults(data, folder, levels if noise == "grid" else 1)


def _breaks(trial: dict[str, Any]) -> bool:
    return bool(trial["goal"] != "dice" and trial["judged"]["status"] == "broken")


def _predict_faults(judged: dict[str, Any], data: dict[str, Any], planned: int) -> Iterator[str]:
    counts, p_value = judged["counts"], judged["p_value"]
    good = len(counts) > 1 and all(isinstance(one, int) and not isinstance(one, bool) and one >= 0 for one in counts)
    if not good or sum(counts) != data["settings"]["n"] or p_value is None:
        yield f"its counts {counts!r:.80} are not of {data['settings']['n']} samples, or have no p-value"
        return
    top, second = sorted(counts, reverse=True)[:2]
    if judged["answer"] != counts.index(top):
        yield f"class {judged['answer']} is not the most frequent one"
    exact = 1.0 if top == second else min(1.0, float(2 * upper_tail(top, top + second, Fraction(1, 2))))
    if not exact * (1 - _ALMOST) <= p_value <= exact * (1 + _ALMOST) + _DRIFT:
        yield f"p_value={p_value!r} is not {exact!r}, which its counts give"
    kept, level = judged["answer"] == data["reference"], data["settings"]["alpha"] / planned
    status = "kept" if kept and p_value <= data["alpha"] else "broken" if not kept and p_value <= level else "abstained"
    if judged["status"] != status:
        yield f"it is called {judged['status']}, and its counts make it {status}"


def _perturbation_faults(data: dict[str, Any], folder: Path, unit: int) -> Iterator[str]:
    norms = {"broken": None if data["broken"] is None else data["trials"][data["broken"]]["norm"]}
    norms["base"] = data["base_norm"] or None  # 0: the image itself
    wanted = {name for name, norm in norms.items() if norm is not None}
    if set(data["perturbations"]) != wanted:
        yield f"it keeps perturbations {sorted(data['perturbations'])}, and found {sorted(wanted)}"
        return
    if not wanted:
        return
    key = digest([digest(data["settings"]), data["item"], data["label"]])[:24]
    try:
        with np.load(folder / "attacks" / f"{key}.npz", allow_pickle=False) as stored:
            arrays = {name: stored[name] for name in stored.files}
    except BROKEN_ARCHIVE as error:
        yield f"its perturbations {key}.npz cannot be read ({error})"
        return
    if {name: _digest(values) for name, values in arrays.items()} != data["perturbations"]:
        yield f"its perturbations {key}.npz are not those it was written with"
        return
    for name, values in arrays.items():
        norm = math.sqrt(float(np.square(values.astype(np.float64)).sum())) / unit
        if abs(norm - norms[name]) > _ALMOST * norm:  # type: ignore[operator]
            yield f"the norm of {name} is {norm!r}, not {norms[name]!r}"


def _digest(values: NDArray[Any]) -> str:
    kind = "<i4" if values.dtype.kind == "i" else "<f8"
    found = hashlib.sha256(json.dumps([kind, list(values.shape)]).encode())
    found.update(np.ascontiguousarray(values, dtype=kind).tobytes())
    return found.hexdigest()


def _certificates(folder: Path) -> dict[tuple[Any, ...], Any]:
    """Class of each certificate that answers (of masks None), by item, method, radius and scope."""
    found = {}
    path = folder / "certificates.jsonl"
    for line in path.read_text(encoding="utf-8").splitlines() if path.is_file() else []:
        try:
            record = json.loads(line)
            for one in record["certificates"]:
                about = (one["item"], one["method"], one["claim"]["radius"], one["scope"])
                found[about] = one["claim"].get("prediction")
        except (ValueError, KeyError, TypeError, AttributeError):
            continue  # the run's own check says so
    return found
