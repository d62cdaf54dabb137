"""Noise laws: what is drawn, what it proves, and how far the program's law is from the theorem's.

**The Gaussian on a grid.** Let G be the grid's step, x in G Z^d an image on the grid, g a vector of independent
standard normals, N = round(sigma g / G) with round(t) = floor(t + 1/2) per value, and f any function of grid images:
the whole program behind the noise, its rounding errors included. Put F(z) = f(G round(z / G)), a function on R^d. As
x / G is an integer vector, round(x / G + t) = x / G + round(t), hence

    f(x + G N) = f(G round((x + sigma g) / G)) = F(x + sigma g)      for every x in G Z^d.

So the smoothed classifier of f under the noise G N, at images of the grid, *is* the Gaussian smoothing of F, and Cohen
et al. 2019, Theorem 1, holds for it as it stands: with P(f(x + G N) = A) >= p_lower the smoothed prediction is A at
every x' in G Z^d with |x' - x|_2 < sigma Phi^-1(p_lower). No bound changes. This holds for the program that runs
because every step of it is exact: the integers x / G and N are float32 values, their sum is an integer below 2^24 and
therefore exact, and the model is given the float32 quotient of that integer and 1/G, a function of it. What remains
assumed is that the forward pass is a function of its input. What remains to be paid is that the sampler draws not N but
something within a proved total variation of it (:mod:`certimed.noise.rounded`): ``variation`` bounds the distance for a
whole sample, by which the probability of every event may be off (:mod:`certimed.statistics.variation`).

**Images and perturbations off the grid.** The deployed classifier takes a real image y to the nearest grid image,
r(y) = G round(y / G), and smooths there; |r(y) - y| <= sqrt(d) G / 2. Let y be the image given and R its radius. For a
real perturbation e, by the triangle inequality,

    |r(y + e) - r(y)| <= |e| + |r(y) - y| + sqrt(d) G / 2,

so the prediction is the same for every e with |e| < R - |r(y) - y| - sqrt(d) G / 2. The two losses are the ``rounding``
and ``slack`` of a :class:`Placement`. Radii carried on through a linear map, to native resolution for instance, are of
this second kind: the image of a perturbation need not lie on the grid.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, ClassVar, Protocol

import numpy as np
import torch
from numpy.random import SFC64, SeedSequence
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from certimed.errors import InputError
from certimed.noise.keys import NoiseKey
from certimed.noise.rounded import device_tables, rounded_gaussian
from certimed.statistics import probability_for_radius, radius_from_lower, radius_two_sided

_PIECE = 1 << 20
_EXACT = 1 << 24  # float32 holds every integer up to here
_FINEST, _WIDEST = 64, 1 << 19  # steps in one sigma: the first for the table's proof, the second for its size


class Source(Protocol):
    """Noise of one chunk, from its beginning."""

    def fill(self, piece: Tensor) -> None:
        """Write the next samples into float32 ``(count, *shape)``; each sample is drawn by a call of its own."""


@dataclass(frozen=True)
class Placement:
    """Where an image lies among the images a law speaks of.

    Attributes:
        on_grid: the model is given the image's own float32 values, bit for bit, where no noise is added.
        rounding: L2 distance of the image's float32 values from the certified image, rounded up.
        slack: largest L2 distance of any image of this size from the nearest certifiable one, rounded up.
    """

    on_grid: bool
    rounding: float
    slack: float

    def real_radius(self, radius: float) -> float:
        """The part of a radius that holds for arbitrary real perturbations of the image, rounded down; at least 0."""
        loss = _up(self.rounding + self.slack)
        return max(0.0, math.nextafter(radius - loss, -math.inf)) if loss else radius


class NoiseLaw(Protocol):
    """What is added to an image, and what agreement under it proves. All laws here are Gaussian: radii are L2.

    An image enters a law once, as its ``origin``: the image in the law's own coordinates, always a fresh tensor. Noise
    comes from :class:`certimed.noise.NoiseStream` in the same coordinates, and ``noisy`` makes of both what the model
    is given.
    """

    name: ClassVar[str]
    norm: ClassVar[str]

    @property
    def sigma(self) -> float:
        """Standard deviation of the noise, in [0, 1] units."""

    @property
    def levels(self) -> int | None:
        """1 / step of the grid that images are on, or None where there is no grid."""

    def origin(self, image: Tensor) -> Tensor:
        """The image in the law's coordinates: float32 of the same shape, on the same device, never a view."""

    def clean(self, origin: Tensor) -> Tensor:
        """What the model is given without noise: float32, never a view."""

    def noisy(self, origin: Tensor, noise: Tensor) -> Tensor:
        """What the model is given: ``noise``, float32 ``(B, *shape)`` as drawn, overwritten and returned."""

    def source(self, key: NoiseKey, chunk: int, device: torch.device) -> Source:
        """The noise of one chunk of a key."""

    def variation(self, values: int) -> float:
        """Bound on the total variation between the drawn and the exact law of a sample of ``values`` values."""

    def placement(self, image: Tensor) -> Placement:
        """Where the image lies among the images the law speaks of."""

    def radius(self, p_lower: ArrayLike, q_upper: ArrayLike | None = None) -> NDArray[np.float64]:
        """L2 radius that these bounds on the *exact* law's probabilities prove, rounded down."""

    def probability(self, radius: float) -> float:
        """A probability that proves at least ``radius`` if the top class's is above it, rounded up."""

    def to_dict(self) -> dict[str, Any]:
        """The law as JSON data; :func:`law_from_dict` reads it back."""


@dataclass(frozen=True)
class _Gaussian:
    sigma: float

    name: ClassVar[str]
    norm: ClassVar[str] = "L2"

    def __post_init__(self) -> None:
        sigma = self.sigma
        if isinstance(sigma, bool) or not isinstance(sigma, int | float | np.integer | np.floating):
            raise InputError(f"sigma={sigma!r} is no noise level; use a positive number in [0, 1] units, e.g. 0.25")
        if not (math.isfinite(sigma) and sigma > 0):
            raise InputError(f"sigma={sigma!r} is no noise level; use a positive number in [0, 1] units, e.g. 0.25")
        object.__setattr__(self, "sigma", float(sigma))

    def radius(self, p_lower: ArrayLike, q_upper: ArrayLike | None = None) -> NDArray[np.float64]:
        if q_upper is None:
            return radius_from_lower(p_lower, self.sigma)
        return radius_two_sided(p_lower, q_upper, self.sigma)

    def probability(self, radius: float) -> float:
        return float(probability_for_radius(radius, self.sigma))

    def to_dict(self) -> dict[str, Any]:
        return {"name": self.name, **asdict(self)}


@dataclass(frozen=True)
class Float32Gaussian(_Gaussian):
    """``image + sigma * normal``, all in float32: the noise of published implementations.

    The theorem holds for it if float32 arithmetic is taken for real arithmetic. That is an assumption, and a model
    that looks for it can break it: the low bits of the sum depend on the image, and PyTorch's CPU normals end at
    5.8 sigma.

    Args:
        sigma: standard deviation of the noise in [0, 1] units.

    Raises:
        InputError: sigma is no positive finite number.
    """

    name: ClassVar[str] = "gaussian-float32"
    levels: ClassVar[None] = None

    def origin(self, image: Tensor) -> Tensor:
        return image.detach().to(torch.float32, copy=True)

    def clean(self, origin: Tensor) -> Tensor:
        return origin.clone()

    def noisy(self, origin: Tensor, noise: Tensor) -> Tensor:
        return noise.mul_(self.sigma).add_(origin)

    def source(self, key: NoiseKey, chunk: int, device: torch.device) -> Source:
        return _Normals(key.generator(chunk, device))

    def variation(self, values: int) -> float:
        """0: real arithmetic is assumed, not approximated."""
        return 0.0

    def placement(self, image: Tensor) -> Placement:
        return Placement(on_grid=True, rounding=0.0, slack=0.0)


@dataclass(frozen=True)
class GridGaussian(_Gaussian):
    """The rounded Gaussian on the grid of step 1 / (255 k): exact in float32 (proof in the module docstring).

    With k = 257 the step is 1/65535, so that the values of 8-bit and of 16-bit images lie on the grid.

    Args:
        sigma: standard deviation of the noise in [0, 1] units, before rounding.
        k: grid steps in 1/255.

    Raises:
        InputError: sigma is no positive finite number, k is no integer from 1 to 65793, or sigma is below 64 or above
            2^19 steps.
    """

    k: int = 257

    name: ClassVar[str] = "gaussian-grid"

    def __post_init__(self) -> None:
        super().__post_init__()
        if isinstance(self.k, bool) or not isinstance(self.k, int) or not 1 <= self.k <= _EXACT // 255:
            raise InputError(
                f"k={self.k!r} is no number of grid steps in 1/255; use an integer from 1 to {_EXACT // 255}, e.g. 257"
            )
        steps = self.sigma * self.levels
        if not _FINEST <= steps <= _WIDEST:
            raise InputError(
                f"sigma={self.sigma:g} is {steps:.4g} steps of the grid 1/{self.levels}, which must be {_FINEST} to "
                f"{_WIDEST}; choose sigma between {_FINEST / self.levels:.2g} and {_WIDEST / self.levels:.2g}, or the "
                "float32 law"
            )

    @property
    def levels(self) -> int:
        """1 / step."""
        return 255 * self.k

    def origin(self, image: Tensor) -> Tensor:
        """Nearest grid points as integers in float32: exact, as a float32 value times ``levels`` is a float64 value.

        Raises:
            InputError: a value is not finite, or so large that its sum with noise might not be exact in float32.
        """
        limit = _EXACT - rounded_gaussian(self.sigma, self.levels).half
        found = torch.empty(image.shape, dtype=torch.float32)
        for piece, out in zip(self._steps(image), torch.split(found.view(-1), _PIECE)):
            steps = piece.round()
            if not bool((steps.abs() <= limit).all()):
                raise InputError(
                    f"the image has values that are not finite or above {limit / self.levels:.4g} in size, where sums "
                    f"on the grid 1/{self.levels} are not exact; scale it to [0, 1]"
                )
            out.copy_(steps)
        return found.to(image.device)

    def clean(self, origin: Tensor) -> Tensor:
        return origin / self._divisor(origin.device)

    def noisy(self, origin: Tensor, noise: Tensor) -> Tensor:
        return noise.add_(origin).div_(self._divisor(origin.device))

    def source(self, key: NoiseKey, chunk: int, device: torch.device) -> Source:
        if device.type == "cpu":
            return _Rounded(SFC64(SeedSequence(key.entropy(chunk), pool_size=8)), self.sigma, self.levels)
        return _RoundedElsewhere(key.generator(chunk, device), self.sigma, self.levels)

    def variation(self, values: int) -> float:
        return _up(values * rounded_gaussian(self.sigma, self.levels).variation)

    def placement(self, image: Tensor) -> Placement:
        origin = self.origin(image)
        # Steps and grid points are exact in float64 and so is their difference. The rounding of one norm of d values is
        # below d + 4 units of 2^-52; the norm of p norms adds as much for p values.
        norms = [torch.linalg.vector_norm(steps - steps.round()) for steps in self._steps(image)]
        whole = norms[0] if len(norms) == 1 else torch.linalg.vector_norm(torch.stack(norms))
        off, count = float(whole) / self.levels, image.numel()
        terms = count + 4 if len(norms) == 1 else count + len(norms) + 8
        return Placement(
            on_grid=torch.equal(self.clean(origin), image.detach().to(torch.float32)),
            rounding=_up(off * (1 + terms * 2.0**-52)) if off else 0.0,
            slack=_up(_up(math.sqrt(count)) / (2 * self.levels)),
        )

    def _steps(self, image: Tensor) -> Iterator[Tensor]:
        """Values in steps of the grid, float64, in pieces: of a volume eight bytes each are too much at once."""
        # Not every device has float64.
        values = image.detach().to(torch.float32).to("cpu")
        for piece in torch.split(values.reshape(-1), _PIECE):
            yield piece.to(torch.float64) * self.levels

    def _divisor(self, device: torch.device) -> Tensor:
        # A tensor: CUDA replaces division by a Python number with multiplication by its rounded inverse.
        return torch.full((), float(self.levels), dtype=torch.float32, device=device)


class _Normals:
    def __init__(self, generator: torch.Generator) -> None:
        self.generator = generator

    def fill(self, piece: Tensor) -> None:
        for sample in piece:
            sample.normal_(generator=self.generator)


class _Rounded:
    def __init__(self, bits: SFC64, sigma: float, levels: int) -> None:
        self.bits, self.law = bits, rounded_gaussian(sigma, levels)

    def fill(self, piece: Tensor) -> None:
        for sample in piece:
            self.law.draw(self.bits, sample.view(-1).numpy())


class _RoundedElsewhere:
    def __init__(self, generator: torch.Generator, sigma: float, levels: int) -> None:
        self.generator, self.law = generator, device_tables(sigma, levels, generator.device)

    def fill(self, piece: Tensor) -> None:
        self.law.draw(self.generator, piece)


_LAWS: dict[str, Callable[..., NoiseLaw]] = {"grid": GridGaussian, "float32": Float32Gaussian}
LAW_NAMES = tuple(_LAWS)
DEFAULT_LAW = "grid"
"""What the command line calls the laws."""


def named_law(name: str, sigma: float) -> NoiseLaw:
    """A law by its name on the command line: "grid" or "float32".

    Raises:
        InputError: an unknown name, or a sigma that the law refuses.
    """
    if name not in _LAWS:
        raise InputError(f"noise={name!r} is unknown; use one of {', '.join(LAW_NAMES)}")
    return _LAWS[name](sigma)


def as_law(noise: str | NoiseLaw, sigma: float) -> NoiseLaw:
    """A law as the argument ``noise`` of a facade asks for it: itself, or by its name at this sigma.

    Raises:
        InputError: as :func:`named_law`; a law of another sigma.
    """
    if isinstance(noise, str):
        return named_law(noise, sigma)
    if noise.sigma != sigma:
        raise InputError(f"sigma={sigma} and a noise law of sigma={noise.sigma} were given; they must be equal")
    return noise


def sample_variation(law: NoiseLaw, values: int, views: tuple[float, float] | None = None) -> float:
    """Bound on the total variation distance of one sample's law from the exact one, rounded up.

    A sample of two views is a pair of independent draws at other noise levels; total variation is subadditive over
    products, so their distances add up.

    Args:
        law: of the certificate.
        values: of the image.
        views: noise levels of the views, where a sample consists of two.
    """
    if views is None:
        return law.variation(values)
    first, second = (replace(law, sigma=sigma).variation(values) for sigma in views)  # type: ignore[type-var]
    return _up(first + second)


def law_from_dict(data: Mapping[str, Any]) -> NoiseLaw:
    """The inverse of ``to_dict``.

    Raises:
        InputError: an unknown name, a missing or unknown field, or a value that the law refuses.
    """
    if dict(data).keys() == {"name", "sigma"} and data["name"] == Float32Gaussian.name:
        return Float32Gaussian(data["sigma"])
    if dict(data).keys() == {"name", "sigma", "k"} and data["name"] == GridGaussian.name:
        return GridGaussian(data["sigma"], data["k"])
    raise InputError(
        f"{dict(data)!r} is no noise law; it must hold name={Float32Gaussian.name!r} and sigma, or "
        f"name={GridGaussian.name!r}, sigma and k"
    )


def _up(value: float) -> float:
    return math.nextafter(value, math.inf) if value else 0.0
