"""One raw image in its workflow: settings in, the image that a model is shown out.

**Why nothing but a Gaussian on the settings is needed.** Fix the raw image and let f(theta) be the model's answer to
what the workflow makes of it at the settings theta. In the coordinates u, in which each setting is counted in units of
its noise from the image's own value (:mod:`certimed.certificates.settings`), f is a function on R^k, and what is drawn
is a standard Gaussian around u = 0. Cohen et al. (ICML 2019), Theorem 1, is about any function and needs no constant of
the interpolation, resampling or clipping inside it: with P[f(theta(g)) = A] >= p the smoothed answer is A at every u
with |u|_2 < Phi^-1(p).

**In floating point.** The law is the Gaussian on a grid (:mod:`certimed.noise`) with sigma 1: u is a multiple of
1/65535, exact in float32, and 0 is one, so the image's own settings lie on the grid exactly. All that follows (theta in
float64, the workflow, the network) is a function of u, whatever it rounds. The certificate is therefore the grid law's
as it stands, with its charge for the sampler (k times 8e-15) and, for settings off the grid, a radius that is smaller
by sqrt(k) / 2 / 65535. What is deployed is the workflow at settings rounded to that grid, 15 millionths of a noise
unit.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from certimed.certificates import MULTIPLIED, VariedSetting, VariedSettings
from certimed.data import MedicalImage, Raw, raw_image
from certimed.errors import ImageError, ModelError
from certimed.settings.kinds import OWN, SLICE, VIEW, WINDOW, Axis
from certimed.settings.views import brought_back, shown

Function = Callable[[Tensor, Tensor], Tensor]
"""Raw values ``(C, H, W)`` and settings, float64 ``(B, m)`` -> images ``(B, C, H, W)`` in [0, 1]."""


class Workflow:
    """A raw image and its settings.

    Args:
        axes: what is varied.
        image: as it was read.
        device: where images are made.
        function: of one's own, where the axes name one.

    Attributes:
        varied: for the certificate.
        digest: hex SHA-256 of the raw values and the reference settings.

    Raises:
        ImageError: the image does not have what a setting needs: a linear window, the unit named, a spacing, a plane.
    """

    def __init__(
        self, axes: Sequence[Axis], image: MedicalImage, device: torch.device, function: Function | None = None
    ) -> None:
        self.axes, self._function = tuple(axes), function
        raw = raw_image(image)
        self.raw = raw
        self._values = torch.from_numpy(np.ascontiguousarray(raw.values)).to(device)
        self._stages = {axis.kind.stage for axis in axes}
        if VIEW in self._stages and self._values.ndim != 3:
            raise ImageError(f"{image.id} has {self._values.ndim - 1} spatial axes; a viewport is of a plane")
        self.varied = VariedSettings(
            tuple(
                VariedSetting(axis.name, _unit(axis, image, raw), axis.kind.how, axis.scale, _own(axis, raw))
                for axis in axes
            ),
            tuple(self._values.shape if SLICE not in self._stages else image.pixels.shape),
        )
        self._scales = torch.tensor([axis.scale for axis in axes], dtype=torch.float64, device=device)
        self._steps = {axis.name: pixels_a_unit(axis, image) for axis in axes}
        found = hashlib.sha256(repr((raw.low, raw.high, raw.unit, raw.inverted, raw.values.shape)).encode())
        found.update(np.ascontiguousarray(raw.values, dtype="<f4").tobytes())
        self.digest = found.hexdigest()

    @property
    def start(self) -> Tensor:
        """The coordinates of the image's own settings: zeros ``(k, 1)``."""
        return torch.zeros((len(self.axes), 1), device=self._values.device)

    def changes(self, u: Tensor) -> dict[str, Tensor]:
        """Coordinates ``(B, k, 1)`` -> by setting, float64 ``(B,)``: the factor, or what is added, in pixels for mm."""
        found = {}
        for place, axis in enumerate(self.axes):
            change = u[:, place, 0].double() * self._scales[place]
            found[axis.name] = change.exp() if axis.kind.how == MULTIPLIED else change * self._steps[axis.name]
        return found

    def images(self, u: Tensor) -> Tensor:
        """Coordinates ``(B, k, 1)`` -> what a model is shown, float32 ``(B, C, H, W)`` in [0, 1].

        Raises:
            ModelError: a function of one's own that does not return such images.
        """
        changes = self.changes(u)
        if OWN in self._stages:
            light = self._own_images(u)
        else:
            raw = self._slices(changes) if SLICE in self._stages else self._values.expand(len(u), *self._values.shape)
            light = self._placed(shown(raw, changes) if VIEW in self._stages else raw, changes)
        axes = (-1, *[1] * (light.ndim - 1))
        gain, offset, gamma = (changes.get(name) for name in ("gain", "offset", "gamma"))
        if gain is not None:
            light = light * gain.float().view(axes)
        if offset is not None:
            light = light + offset.float().view(axes)
        light = light.clamp(0, 1)
        if gamma is not None:
            light = light ** gamma.float().view(axes)
        return torch.where(light.isnan(), 0.0, light)

    def answers(self, scores: Tensor, u: Tensor) -> Tensor:
        """Scores of pixels in the viewport, brought back to the raw image's; unchanged where no viewport moved."""
        return brought_back(scores, self.changes(u)) if VIEW in self._stages else scores

    def _slices(self, changes: dict[str, Tensor]) -> Tensor:
        """Raw values ``(B, C, H, W)`` between the two nearest slices, by their distances."""
        depth = self._values.shape[1]
        at = (changes["slice"] + (depth - 1) / 2).clamp(0, depth - 1)
        below = at.floor().clamp(max=max(0, depth - 2)).long()
        part = (at - below).float().view(-1, 1, 1, 1)
        planes = self._values.transpose(0, 1)
        return planes[below] * (1 - part) + planes[(below + 1).clamp(max=depth - 1)] * part

    def _placed(self, raw: Tensor, changes: dict[str, Tensor]) -> Tensor:
        """Raw values on the ramp, not clipped yet; NaN stays."""
        width = self.raw.width * changes.get("window-width", _one(raw))
        centre = self.raw.centre + changes.get("window-center", 0 * _one(raw))
        slope, shift = 1 / width, 0.5 - centre / width
        if self.raw.inverted:
            slope, shift = -slope, 1 - shift
        axes = (-1, *[1] * (raw.ndim - 1))
        if WINDOW not in self._stages:
            slope, shift = slope[:1], shift[:1]
        return raw * slope.float().view(axes) + shift.float().view(axes)

    def _own_images(self, u: Tensor) -> Tensor:
        assert self._function is not None
        places = [place for place, axis in enumerate(self.axes) if axis.kind.stage == OWN]
        theta = u[:, places, 0].double() * self._scales[places]
        found: Any = self._function(self._values.clone(), theta)
        wanted = (len(u), *self._values.shape[1:])
        if not isinstance(found, Tensor) or found.ndim < 3 or (found.shape[0], *found.shape[2:]) != wanted:
            got = tuple(found.shape) if isinstance(found, Tensor) else type(found).__name__
            raise ModelError(f"{self.axes[places[0]].name} returned {got} where {len(u)} images of {wanted[1:]} belong")
        return found.float()


def _one(raw: Tensor) -> Tensor:
    return torch.ones(len(raw), dtype=torch.float64, device=raw.device)


def _own(axis: Axis, raw: Raw) -> float:
    """The image's own value of a setting."""
    if axis.name == "window-center":
        return float(raw.centre)
    return float(raw.width) if axis.name == "window-width" else 1.0 if axis.kind.how == MULTIPLIED else 0.0


def _unit(axis: Axis, image: MedicalImage, raw: Raw) -> str:
    if axis.name != "window-center":
        return axis.unit
    if axis.unit and raw.unit and axis.unit != raw.unit:
        raise ImageError(f"{image.id} has values in {raw.unit}, and window-center is varied in {axis.unit}; give that")
    return axis.unit or raw.unit


def pixels_a_unit(axis: Axis, image: MedicalImage) -> float:
    """Pixels in one unit of a setting: 1 unless it is given in mm; ImageError where the spacing is not known."""
    if axis.unit != "mm":
        return 1.0
    if image.spacing is None:
        raise ImageError(f"{image.id} does not say its spacing, and {axis.name} is varied in mm; give it in pixels")
    down, across = image.spacing[-2:]
    return 1 / (across if axis.name.endswith(("-x", "-left", "-right")) else down)
