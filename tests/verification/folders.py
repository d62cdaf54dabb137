"""Run folders made by hand: tiny images, linear models, the real engine, and the files that a run writes."""

from __future__ import annotations

import copy
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from certimed.budgets import parse_budget
from certimed.certificates import (
    END_TO_END,
    FROZEN_AT_X,
    MODEL_INPUT,
    SETTINGS,
    VariedSetting,
    VariedSettings,
    collect_provenance,
)
from certimed.engine import Engine, ModelStream, Origin, Scores
from certimed.integrity import MANIFEST_DIGEST, SETTINGS_DIGEST, ids_digest, seal_line, seal_manifest
from certimed.noise import as_law
from certimed.operators import Geometry
from certimed.operators.geometry import Axis
from certimed.targets import Classes, Pixels
from certimed.verification.masks import arrays_name

SHAPE = (1, 4, 4)
BROKEN = "6.png"
ITEMS = (*(f"{index}.png" for index in range(6)), BROKEN)
NAMES = ("dark", "light")
GEOMETRY = Geometry("same", 1, (Axis(6, (1, 1), 4, (0, 0)), Axis(8, (0, 0), 4, (0, 0))))
IDENTITIES = {"plain": "a" * 64, "tuned": "c" * 64}


def brightness(x: torch.Tensor) -> torch.Tensor:
    """Scores of "dark" and "light": the mean grey level against one half."""
    level = x.flatten(1).mean(dim=1) - 0.5
    return torch.stack([-level, level], dim=1)


def left_half(x: torch.Tensor) -> torch.Tensor:
    """The same of the left half alone."""
    return brightness(x[..., :2])


def pixelwise(x: torch.Tensor) -> torch.Tensor:
    """Two scores of each pixel: how dark and how light it is."""
    return torch.cat([0.5 - x, x - 0.5], dim=1)


def varied(pixels: torch.Tensor) -> VariedSettings:
    """The settings of a run that varies the window."""
    centre = VariedSetting("window-center", "grey", "added", 30.0, 255.0 * float(pixels.mean()))
    return VariedSettings((centre, VariedSetting("window-width", "", "multiplied", 0.2, 255.0)), SHAPE)


def windowed(model: Any, pixels: torch.Tensor) -> Any:
    """The same model of an image whose window is set by coordinates ``(B, 2, 1)``."""

    def answer(u: torch.Tensor) -> torch.Tensor:
        shift, width = u[:, 0] * (30 / 255), (0.2 * u[:, 1]).exp()
        centred = pixels - 0.5 - shift.view(-1, 1, 1, 1)
        return model(centred / width.view(-1, 1, 1, 1) + 0.5)

    return answer


def image(item: str) -> torch.Tensor:
    """A grey image of its own; ValueError for the broken one."""
    if item == BROKEN:
        raise ValueError("it is broken")
    index = ITEMS.index(item)
    generator = np.random.default_rng(index)
    level = 0.5 + (0.03 + 0.03 * index) * (-1) ** index
    return torch.from_numpy(np.clip(level + 0.2 * generator.standard_normal(SHAPE), 0, 1).astype(np.float32))


@dataclass(frozen=True)
class Work:
    """A run's request and how it is carried out.

    Attributes:
        task: ``"classes"`` or ``"mask"``.
        budget, bound, taus, noise, seed: as in a request.
        pillow: version of the decoder.
        native: whether the images come with the geometry of their preparation.
        vary: two settings of the workflow that noise is on, instead of pixels.
    """

    task: str = "classes"
    budget: str = "grid@2000"
    bound: str = "one-sided"
    taus: tuple[float, ...] = (0.6, 0.75)
    noise: str = "grid"
    seed: int = 3
    native: bool = True
    vary: tuple[str, ...] = ()
    pillow: str = "11.3.0"

    @property
    def masks(self) -> bool:
        """Whether masks are certified."""
        return self.task == "mask"

    @property
    def sigma(self) -> float:
        """Of the noise; on settings it is 1, each having a scale of its own."""
        return 1.0 if self.vary else 0.25

    @property
    def space(self) -> str:
        """Where the noise is."""
        return SETTINGS if self.vary else MODEL_INPUT

    def methods(self) -> list[dict[str, Any]]:
        """The manifest's methods."""
        plain = {
            "name": "plain",
            "kind": "plain",
            "scope": END_TO_END,
            "identity": IDENTITIES["plain"],
            "adapter": None,
        }
        tuned = {
            "name": "tuned",
            "kind": "zero-shot",
            "scope": FROZEN_AT_X,
            "identity": IDENTITIES["tuned"],
            "adapter": None,
        }
        return [plain] if self.masks else [plain, tuned]

    def record(self, item: str) -> dict[str, Any]:
        """What certifying one image gives: the line's object without its digest, and of masks the arrays."""
        label = None if self.masks else ITEMS.index(item) % 2
        blank = {"schema": "certimed/record/2", "item": item, "status": "failed", "reason": None, "label": label,
                 "group": "patient", "intensity": None, "place": None, "clean": {}, "certificates": [],
                 "scores": {}}  # fmt: skip
        try:
            pixels = image(item)
        except ValueError as error:
            return blank | {"reason": str(error)}
        models = {"plain": pixelwise} if self.masks else {"plain": brightness, "tuned": left_half}
        settings = varied(pixels) if self.vary else None
        if self.vary:
            models = {name: windowed(model, pixels) for name, model in models.items()}
        streams = {name: ModelStream(model, identity=IDENTITIES[name]) for name, model in models.items()}
        scopes = {one["name"]: one["scope"] for one in self.methods()}
        methods = [Scores(name, scope=scopes[name], stream=name) for name in models]
        law, device = as_law(self.noise, self.sigma), torch.device("cpu")
        engine = Engine(streams, methods, law, space=self.space, device=device)
        space = SHAPE[1:] if self.vary else None
        target: Any = Pixels(2, self.taus, space=space) if self.masks else Classes(2, self.bound)
        geometry = GEOMETRY if self.native and not self.vary else None
        origin = Origin("divided by 255", {"Pillow": self.pillow}, geometry, settings, "9" * 64 if self.vary else None)
        found = engine.run(torch.zeros(2, 1) if self.vary else pixels, target, parse_budget(self.budget), n0=20,
                           seed=self.seed, item_id=item, batch_size=64, origin=origin)  # fmt: skip
        made = [certificate for result in found.values() for certificate in result.certificates]
        clean = {} if self.masks else {name: int(result.clean) for name, result in found.items()}
        record = blank | {"status": "certified", "clean": clean, "certificates": [one.to_dict() for one in made]}
        if self.masks:
            record["arrays"] = {arrays_name(item, one.method, one.claim.tau): one.claim.arrays() for one in made}
            row = {"guaranteed Dice": [0.5, 0.6], "best-case Dice": [0.9, None]}
            whole = {"certified accuracy": 0.5, "best-case accuracy": 0.75}
            scores = {"item": item, "empty": "one", "per_class": row, "whole": whole}
            record["scores"] = {one.label: scores for one in made}
        return record

    def manifest(self) -> dict[str, Any]:
        """run.json before it is sealed."""
        target = (
            {"taus": list(self.taus), "correction": "holm", "empty": "one"} if self.masks else {"bound": self.bound}
        )
        request = {
            "task": self.task, "model": "brightness", "data": {"path": "images/"}, "target": target,
            "methods": ["plain"], "sigma": self.sigma, "noise": self.noise, "budget": str(parse_budget(self.budget)),
            "n0": 20, "alpha": 0.001, "seed": self.seed, "space": self.space, "vary": list(self.vary),
            "denoiser": None, "device": "cpu", "batch_size": 64,
            "speed": {"precision": "float32", "engine": "torch", "channels_last": False},
        }  # fmt: skip
        provenance = collect_provenance("cpu").to_dict()
        kept = ("device", "device_name", "dtype", "versions")
        return {
            "schema": "certimed/run/2", "certimed": "0.2", "created": "2026-01-01T00:00:00+00:00", "request": request,
            "model": {"name": "brightness", "identity": "a" * 64, "input_shape": list(SHAPE)},
            "methods": self.methods(), "classes": list(NAMES), "denoiser": None,
            "data": {"source": "images/", "identity": "d" * 64, "images": len(ITEMS), "ids_sha256": ids_digest(ITEMS),
                     "stat": [], "ignored_files": [], "reading": {}},
            "provenance": {name: provenance[name] for name in kept}, "local": {"batch_size": 64},
        }  # fmt: skip

    def write(self, folder: Path) -> Path:
        """The whole run."""
        run = Folder(folder, self.manifest(), [self.record(item) for item in ITEMS])
        (folder / "arrays").mkdir(parents=True)
        run.write()
        return folder


class Folder:
    """A run folder in memory, to be edited and written with digests that hold.

    Attributes:
        manifest, records: their JSON; of new records of masks also the ``"arrays"``.
    """

    def __init__(self, path: Path, manifest: dict[str, Any], records: list[dict[str, Any]]) -> None:
        self.path, self.manifest, self.records = path, manifest, records

    @classmethod
    def read(cls, path: Path) -> Folder:
        """What is there."""
        lines = (path / "certificates.jsonl").read_text().splitlines()
        return cls(path, json.loads((path / "run.json").read_text()), [json.loads(line) for line in lines])

    def write(self) -> None:
        """Write everything; all digests are made anew."""
        parts = {name: part for name, part in self.manifest.items() if name not in (SETTINGS_DIGEST, MANIFEST_DIGEST)}
        self.manifest = seal_manifest(parts)
        (self.path / "run.json").write_text(json.dumps(self.manifest))
        with (self.path / "certificates.jsonl").open("w") as stream:
            for record in self.records:
                content = copy.copy(record)
                content.pop("sha256", None)
                for name, arrays in content.pop("arrays", {}).items():
                    np.savez_compressed(self.path / name, **arrays)
                stream.write(seal_line(json.dumps(content), self.manifest[SETTINGS_DIGEST]) + "\n")

    def record(self, item: str = "3.png") -> dict[str, Any]:
        """The record of an item."""
        return next(record for record in self.records if record["item"] == item)

    def certificate(self, item: str = "3.png", place: int = 0) -> dict[str, Any]:
        """One of its certificates."""
        found: dict[str, Any] = self.record(item)["certificates"][place]
        return found

    @property
    def certificates(self) -> list[dict[str, Any]]:
        """All of them."""
        return [certificate for record in self.records for certificate in record["certificates"]]

    def layers(self, item: str = "3.png", tau: float = 0.75) -> tuple[Path, dict[str, Any]]:
        """The file of a mask's arrays, and the arrays."""
        path = self.path / arrays_name(item, "plain", tau)
        with np.load(path) as stored:
            return path, dict(stored)
