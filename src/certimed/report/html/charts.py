"""Charts as inline SVG: colours from the page's style, told apart by dashes and patterns as well, with a text for those
who do not see them."""

from __future__ import annotations

import html
import math
from collections.abc import Sequence
from dataclasses import dataclass, field

STYLES = 7
"""Kinds of line the page's style knows; further curves start again."""

_WIDTH, _HEIGHT = 420, 300
_LEFT, _RIGHT, _TOP, _BOTTOM = 46, 12, 12, 46


@dataclass(frozen=True)
class Curve:
    """One line with its band.

    Attributes:
        key: ties the line to its switch in the legend.
        style: number of its colour and dash.
        xs, ys: points; drawn as a staircase that falls behind each point, or straight.
        low, high: the band, or empty; may end before the line does.
        steps: a staircase.
    """

    key: str
    style: int
    xs: Sequence[float]
    ys: Sequence[float]
    low: Sequence[float] = field(default=())
    high: Sequence[float] = field(default=())
    steps: bool = True


def line_chart(
    name: str,
    title: str,
    description: str,
    curves: Sequence[Curve],
    *,
    x_max: float,
    x_label: str,
    y_label: str,
    grey_levels: float | None = None,
) -> str:
    """Curves of shares (0..1) over radii.

    Args:
        name: an id unique on the page.
        title, description: for screen readers.
        curves: drawn in this order, bands below all lines.
        x_max: right end of the axis, positive.
        grey_levels: RMS grey levels of radius 1, for a second scale; None leaves it out.
    """
    ticks = nice_ticks(x_max)
    parts = [*_y_axis(y_label), *_x_axis(ticks, x_max, x_label, grey_levels)]
    parts += [_band(curve, x_max) for curve in curves if curve.low]
    parts += [_line(curve, x_max) for curve in curves]
    return _svg(name, title, description, "".join(parts), _WIDTH, _HEIGHT + (16 if grey_levels else 0))


def nice_ticks(largest: float, most: int = 6) -> list[float]:
    """Round numbers from 0 to at most ``largest``.

    >>> nice_ticks(0.87)
    [0.0, 0.2, 0.4, 0.6, 0.8]
    """
    rough = largest / most
    power = 10 ** math.floor(math.log10(rough))
    step = next(power * factor for factor in (1, 2, 2.5, 5, 10) if power * factor >= rough)
    return [round(index * step, 10) for index in range(int(largest / step + 1e-9) + 1)]


def nice_between(low: float, high: float, most: int = 6) -> list[float]:
    """Round numbers from at most ``low`` to at least ``high``, of any sign.

    >>> nice_between(5236.0, 5301.0)
    [5220.0, 5240.0, 5260.0, 5280.0, 5300.0, 5320.0]
    """
    rough = ((high - low) or abs(high) or 1.0) / most
    power = 10 ** math.floor(math.log10(rough))
    step = next(power * factor for factor in (1, 2, 2.5, 5, 10) if power * factor >= rough)
    first, last = math.floor(low / step), math.ceil(high / step)
    return [round(index * step, 10) for index in range(first, last + 1)]


def _y_axis(label: str) -> list[str]:
    parts = []
    for share in (0, 0.25, 0.5, 0.75, 1):
        y = _y(share)
        parts.append(f'<line class="grid" x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(f'<text x="{_LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{100 * share:.0f}</text>')
    middle = (_TOP + _HEIGHT - _BOTTOM) / 2
    parts.append(f'<text transform="rotate(-90)" x="{-middle}" y="12" text-anchor="middle">{html.escape(label)}</text>')
    return parts


def _x_axis(ticks: Sequence[float], x_max: float, label: str, grey_levels: float | None) -> list[str]:
    bottom = _HEIGHT - _BOTTOM
    parts = [f'<line class="axis" x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{bottom}" y2="{bottom}"/>']
    for tick in ticks:
        x = _x(tick, x_max)
        parts.append(f'<line class="axis" x1="{x:.1f}" x2="{x:.1f}" y1="{bottom}" y2="{bottom + 4}"/>')
        parts.append(f'<text x="{x:.1f}" y="{bottom + 17}" text-anchor="middle">{tick:g}</text>')
        if grey_levels is not None:
            below = f'x="{x:.1f}" y="{bottom + 31}" text-anchor="middle"'
            parts.append(f'<text class="quiet" {below}>{tick * grey_levels:.2g}</text>')
    centre = (_LEFT + _WIDTH - _RIGHT) / 2
    lowest = bottom + (50 if grey_levels is not None else 36)
    parts.append(f'<text x="{centre}" y="{lowest}" text-anchor="middle">{html.escape(label)}</text>')
    return parts


def _x(value: float, x_max: float) -> float:
    return _LEFT + (_WIDTH - _LEFT - _RIGHT) * value / x_max


def _y(share: float) -> float:
    return _TOP + (_HEIGHT - _BOTTOM - _TOP) * (1 - share)


def _points(xs: Sequence[float], ys: Sequence[float], x_max: float, steps: bool) -> list[tuple[float, float]]:
    points: list[tuple[float, float]] = []
    for index, (x, y) in enumerate(zip(xs, ys)):
        if steps and index and ys[index - 1] != y:
            points.append((_x(x, x_max), _y(ys[index - 1])))
        # A point on a straight run of a staircase draws nothing.
        if not steps or index in (0, len(xs) - 1) or ys[index - 1] != y:
            points.append((_x(x, x_max), _y(y)))
    return points


def _path(points: Sequence[tuple[float, float]]) -> str:
    return "M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in points)


def _line(curve: Curve, x_max: float) -> str:
    path = _path(_points(curve.xs, curve.ys, x_max, curve.steps))
    return f'<path class="line c{curve.style % STYLES}" data-curve="{html.escape(curve.key)}" d="{path}"/>'


def _band(curve: Curve, x_max: float) -> str:
    known = curve.xs[: len(curve.low)]
    above = _points(known, curve.high, x_max, curve.steps)
    below = _points(known, curve.low, x_max, curve.steps)
    path = _path([*above, *reversed(below)])
    return f'<path class="band c{curve.style % STYLES}" data-curve="{html.escape(curve.key)}" d="{path}Z"/>'


def histogram_chart(
    name: str, title: str, description: str, rows: Sequence[tuple[str, int, Sequence[int]]], x_max: float, x_label: str
) -> str:
    """Counts in equal bins from 0 to ``x_max``, one strip a row: (label, style, counts)."""
    strip, gap = 34, 20
    height = len(rows) * (strip + gap) + _BOTTOM
    bins = max(len(counts) for _, _, counts in rows)
    highest = max((max(counts, default=0) for _, _, counts in rows), default=0) or 1
    inner = _WIDTH - 2 * _RIGHT
    parts = []
    for index, (label, style, counts) in enumerate(rows):
        base = index * (strip + gap) + gap + strip
        parts.append(f'<text x="{_RIGHT}" y="{base - strip - 5}">{html.escape(label)}</text>')
        parts.append(f'<line class="axis" x1="{_RIGHT}" x2="{_RIGHT + inner}" y1="{base}" y2="{base}"/>')
        for place, count in enumerate(counts):
            if count:
                tall = max(1.5, strip * count / highest)
                parts.append(
                    f'<rect class="fill c{style % STYLES}" x="{_RIGHT + inner * place / bins + 0.5:.1f}" '
                    f'y="{base - tall:.1f}" width="{inner / bins - 1:.1f}" height="{tall:.1f}">'
                    f"<title>{count}</title></rect>"
                )
    bottom = height - _BOTTOM
    for tick in nice_ticks(x_max):
        x = _RIGHT + inner * tick / x_max
        parts.append(f'<text x="{x:.1f}" y="{bottom + 18}" text-anchor="middle">{tick:g}</text>')
    parts.append(f'<text x="{_WIDTH / 2}" y="{bottom + 38}" text-anchor="middle">{html.escape(x_label)}</text>')
    return _svg(name, title, description, "".join(parts), _WIDTH, height)


def _svg(name: str, title: str, description: str, body: str, width: int, height: int) -> str:
    return (
        f'<svg class="chart" viewBox="0 0 {width} {height}" role="img" aria-labelledby="{name}-t {name}-d">'
        f'<title id="{name}-t">{html.escape(title)}</title><desc id="{name}-d">{html.escape(description)}</desc>'
        f"{body}</svg>"
    )
