"""The part of the page about settings: how far each may be set otherwise, and the ellipse of two, with pictures."""

from __future__ import annotations

import html
import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from certimed.certificates import MULTIPLIED, SETTINGS, Certificate, VariedSetting, VariedSettings, shown
from certimed.certificates.words import noise_text, reach_text
from certimed.data import MedicalImage
from certimed.errors import ImageError
from certimed.report.html.numbers import plain
from certimed.report.html.part import Line, Material, Part
from certimed.report.html.pictures import thumbnail
from certimed.report.sentences import Sentence
from certimed.settings import Workflow, read_vary
from certimed.settings.kinds import OWN, PROMPT, SLICE

_IMAGES = 6
_EDGE = 72
_WIDTH, _HEIGHT, _MARGIN = 520, 400, 92
_RIM = 0.999  # of the radius: where pictures are taken, still covered
_POINTS = 96


class SettingsPart(Part):
    """Settings: per axis what is covered, as quantiles over images and image by image; the ellipse of the first two."""

    template = "varied.html.j2"
    contents = (("varied", "Settings"),)

    def __init__(self, material: Material) -> None:
        super().__init__([line for line in material.lines if line.of.space == SETTINGS])
        self.tables = [(line.title, _heads(line), _rows(line)) for line in self.lines]
        self.ellipses: list[dict[str, str]] = []
        for line in self.lines[:1]:
            for certificate in [one for one in line.read() if not one.abstained][:_IMAGES]:
                if (drawn := _ellipse(certificate, material, line)) is not None:
                    self.ellipses.append(drawn)

    @classmethod
    def of(cls, material: Material) -> Part | None:
        return cls(material) if any(line.of.space == SETTINGS for line in material.lines) else None

    def headlines(self) -> dict[int, Sentence]:
        return {}  # the part of the answers speaks for the run


def _heads(line: Line) -> list[str]:
    settings = _settings(line.read()[0])
    return [f"{one.name} (noise {noise_text(one)})" for one in settings.axes]


def _rows(line: Line) -> list[tuple[str, list[str]]]:
    """The quartiles of the images' radii as reaches, then the first images themselves."""
    certificates = line.read()
    radii = np.sort([one.real_radius for one in certificates])
    axes = _settings(certificates[0]).axes
    rows = []
    for name, share in (("a quarter of the images below", 0.25), ("median image", 0.5), ("a quarter above", 0.75)):
        radius = float(radii[math.ceil(share * len(radii)) - 1])
        rows.append((name, [_change(one, radius) for one in axes]))
    for one in certificates[:_IMAGES]:
        cells = [reach_text(axis, one.real_radius) for axis in _settings(one).axes]
        rows.append((plain(one.item, 80), ["nothing proved"] * len(cells) if one.abstained else cells))
    return rows


def _change(one: VariedSetting, radius: float) -> str:
    far = shown(one.reach(radius), "lower", digits=4)
    return f"x{far}" if one.how == MULTIPLIED else f"±{far} {one.unit}".rstrip()


def _settings(certificate: Certificate[Any]) -> VariedSettings:
    settings = certificate.about.settings
    assert settings is not None  # the part is of this space alone
    return settings


def _ellipse(certificate: Certificate[Any], material: Material, line: Line) -> dict[str, str] | None:
    """The certified settings in the plane of the first two, the others as they are."""
    settings = _settings(certificate)
    if len(settings.axes) < 2:
        return None
    radius, axes = certificate.real_radius, settings.axes[:2]

    def value(axis: VariedSetting, u: float) -> float:
        return axis.at * math.exp(axis.scale * u) if axis.how == MULTIPLIED else axis.at + axis.scale * u

    ends = [[value(axis, -radius), value(axis, radius)] for axis in axes]

    def place(u: Sequence[float]) -> tuple[float, float]:
        across, up = ((value(axis, one) - low) / (high - low) for axis, one, (low, high) in zip(axes, u, ends))
        return _MARGIN + across * (_WIDTH - 2 * _MARGIN), _HEIGHT - _MARGIN - up * (_HEIGHT - 2 * _MARGIN)

    turns = [2 * math.pi * step / _POINTS for step in range(_POINTS)]
    rim = " ".join("{:.1f},{:.1f}".format(*place([radius * math.cos(t), radius * math.sin(t)])) for t in turns)
    parts = [f'<polygon class="ellipse" points="{rim}" fill="none" stroke="currentColor"/>']
    picture = _pictures(certificate, material, line)
    for u in ((0.0, 0.0), (_RIM, 0.0), (-_RIM, 0.0), (0.0, _RIM), (0.0, -_RIM)):
        x, y = place([radius * one for one in u])
        parts.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3"/>')
        address = None if picture is None else picture([radius * one for one in u])
        if address is not None and material.budget.spend(address) is not None:
            side = _EDGE
            left = x - side / 2 + (side / 2 + 6) * (u[0] > 0) - (side / 2 + 6) * (u[0] < 0)
            top = y - side / 2 - (side / 2 + 6) * (u[1] > 0) + (side / 2 + 6) * (u[1] < 0)
            parts.append(f'<image href="{address}" x="{left:.1f}" y="{top:.1f}" width="{side}" height="{side}"/>')
    for axis, (low, high), across in zip(axes, ends, (True, False)):
        words = html.escape(plain(f"{axis.name}: {low:.4g} to {high:.4g} {axis.unit}".rstrip(), 80))
        where = (
            f'x="{_WIDTH / 2}" y="{_HEIGHT - 4}" text-anchor="middle"'
            if across
            else f'transform="translate(12 {_HEIGHT / 2}) rotate(-90)" text-anchor="middle"'
        )
        parts.append(f"<text {where}>{words}</text>")
    name = html.escape(plain(certificate.item, 80))
    body = "".join(parts)
    chart = (
        f'<svg class="chart" viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img"><title>{name}: the settings that are covered, '
        f"as an ellipse; the table has the numbers</title>{body}</svg>"
    )
    return {"title": f"{certificate.item}, {line.title}", "chart": chart}


def _pictures(
    certificate: Certificate[Any], material: Material, line: Line
) -> Callable[[Sequence[float]], str | None] | None:
    """What a model is shown at coordinates of the first two settings; None where the image is not here.

    Nobody's code is run to draw a page, boxes are no change of the image, and slices would read the volume again.
    """
    axes = read_vary(line.run.spec.vary)
    image: MedicalImage | None = material.pictures[line.run.index].load(certificate.item)
    if image is None or {axis.kind.stage for axis in axes} & {OWN, PROMPT, SLICE}:
        return None
    try:
        workflow = Workflow(axes, image, torch.device("cpu"))
    except ImageError:
        return None

    def at(u: Sequence[float]) -> str:
        coordinates = torch.zeros((1, len(axes), 1))
        coordinates[0, :2, 0] = torch.tensor(list(u))
        return thumbnail(replace(image, pixels=workflow.images(coordinates)[0].numpy(), mask=None), _EDGE)

    return at
