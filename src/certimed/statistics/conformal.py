"""Right, not only stable: levels and thresholds of conformal sets, and of controlled risks, under attack.

**Setting.** m labelled calibration images and a test image (X, Y), all exchangeable; one noisy copy of each, the noises
independent of each other and of the images, drawn from one law Q. A score s(z, y) is any function of a noisy copy z and
a class y that was fixed before the calibration images were looked at. An attacker who sees everything but the test
image's noise moves X by d, |d|_2 <= r, before that noise is added. (RCP1, arXiv 2506.16553; BinCP, arXiv 2503.05239.)

**Without attack** (Vovk et al. 2005; ties can only help). Let q be the k-th smallest of the m calibration scores. The
m + 1 scores are exchangeable, so the test score is at most q with probability at least k / (m + 1). With
k = ceil((m + 1)(1 - a')) <= m, which is to say (m + 1) a' >= 1, the set {y : s(Z, y) <= q} holds Y with probability at
least 1 - a'.

**Under attack.** Let b be the probability that the set holds Y given all but the test noise, without attack, so that
E[b] >= 1 - a'. Let P be the exact Gaussian law of the theorem, within total variation v of the law Q that is drawn
(:mod:`certimed.statistics.variation`; v = 0 where they are one). Given all but the test noise, q, Y and d are fixed and
{z : s(z, Y) <= q} is an event of the noisy copy. By the Neyman-Pearson lemma its probability under attack is, for P, at
least c(p) with c(t) = Phi(Phi^-1(t) - r / sigma) and p its probability for P without attack; p >= b - v, and going back
to Q costs v again: at least c(b - v) - v, where c is continued by 0 below 0. Its derivative exp(z delta - delta^2 / 2),
z = Phi^-1(t), delta = r / sigma, is not negative and rises with t, so c is convex and rising, also as continued. By
Jensen's inequality

    P[Y in the set, under attack] >= E[c(b - v)] - v >= c(E[b] - v) - v >= c(1 - a' - v) - v,

which is at least 1 - a for a' = Phi(Phi^-1(a - v) - r / sigma) - v: :func:`robust_level`. One copy of the test image:
the mean over several would multiply the norm of the attack by the root of their number.

**Risk** (conformal risk control, Angelopoulos et al., ICLR 2024). Let L_i(j) in [0, 1] be the loss of image i at level
j = 0, 1, ..., J, not rising in j, 0 at j = J, and j* the first level with (m / (m + 1)) mean_i L_i(j) + 1 / (m + 1)
<= a'. Then E[L(j*)] <= a' for the test image. Proof: let j' be the first level with mean over all m + 1 losses <= a';
j' <= j*, since a loss is at most 1, so L(j*) <= L(j'); given the bag of the m + 1 losses, which fixes j', the test
loss is each of them with equal probability, so E[L(j')] is their mean at j', at most a'. **Under attack** let l be the
mean loss over the test noise given all else. For a function with values in [0, 1] the lemma says that the mean under
attack is for P at most u(l), u(t) = Phi(Phi^-1(t) + r / sigma) = 1 - c(1 - t), concave and rising; so with Q as above
E[loss under attack] <= u(a' + v) + v <= a for the same a' as before.
"""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
from numpy.typing import ArrayLike
from scipy import special

from certimed.errors import InputError
from certimed.statistics import _checks as check
from certimed.statistics._checks import FloatArray
from certimed.statistics.binomial import TAIL_MARGIN

SCORE_NAMES = ("lac", "aps")
"""Scores of a class: least ambiguous sets (Sadinle et al. 2019), adaptive prediction sets (Romano et al. 2020)."""

_MARGIN = 1e-13  # relative, of a quantile of the normal law


def robust_level(alpha: float, radius: float, sigma: float, variation: float = 0.0) -> float:
    """The level a' at which to calibrate, so that ``alpha`` holds under attack: Phi(Phi^-1(alpha - v) - r/sigma) - v.

    Rounded down, which only makes sets larger and risks smaller. 0 where no number of calibration images is enough.
    Proof in the module's docstring.

    Args:
        alpha: the wanted miss probability, or expected loss, under attack.
        radius: L2 norm that no attack exceeds, at least 0.
        sigma: of the noise, in the same units.
        variation: v, a bound on the total variation distance between the drawn and the exact law of one sample.

    Raises:
        InputError: an argument out of range.

    >>> [f"{1 - robust_level(0.1, r, 1.0):.3f}" for r in (0.25, 0.5, 1.0)]
    ['0.937', '0.963', '0.989']
    """
    wanted, scale = check.scalar_open_unit("alpha", alpha), check.scalar_positive("sigma", sigma)
    v = float(check.lower_bound(variation, "variation"))
    if not 0 <= radius < math.inf:
        raise InputError(f"radius={radius!r} must be finite and at least 0")
    left = math.nextafter(wanted - v, 0.0) if v else wanted
    if left <= 0:
        return 0.0
    high, shift = float(special.ndtri(left)), radius / scale
    low = high - shift - _MARGIN * (abs(high) + shift + 1.0)
    found = float(special.ndtr(low)) * (1.0 - TAIL_MARGIN) - v
    return max(0.0, math.nextafter(found, 0.0)) if found > 0 else 0.0


def images_needed(level: float) -> int | None:
    """Fewest calibration images at which :func:`quantile_index` is finite: ceil(1 / level) - 1; None for level 0.

    Raises:
        InputError: a level outside [0, 1).

    >>> [images_needed(robust_level(0.1, r, 1.0)) for r in (0.25, 0.5, 1.0)]
    [15, 26, 88]
    """
    own = float(check.lower_bound(level, "level"))
    return max(1, math.ceil(1 / Fraction(own)) - 1) if own else None


def quantile_index(m: int, level: float) -> int:
    """Which of m sorted calibration scores, from 1, is the threshold: ceil((m + 1)(1 - level)), in exact arithmetic.

    Guarantee: a new score, exchangeable with them, is at most that one with probability at least ``1 - level``.

    Raises:
        InputError: too few images; the message names the number that would do.

    >>> quantile_index(99, 0.1)
    90
    """
    size = check.scalar_count("m", m)
    own = float(check.lower_bound(level, "level"))
    place = size + 1 - math.floor((size + 1) * Fraction(own))
    if place > size:
        raise InputError(_too_few(size, own))
    return place


def risk_index(losses: ArrayLike, level: float) -> int:
    """The first level whose corrected mean loss, (m / (m + 1)) mean + 1 / (m + 1), is at most ``level``.

    Guarantee: the loss of a new image there, exchangeable with these, is at most ``level`` in expectation.

    Args:
        losses: float64 ``(m, levels)`` in [0, 1], not rising along the levels, 0 at the last one.
        level: see :func:`robust_level`.

    Raises:
        InputError: losses of another form; too few images, with the number that would do.

    >>> risk_index([[1.0, 0.2, 0.0]] * 19, 0.1)
    2
    """
    rows = check.unit("losses", losses)
    if rows.ndim != 2 or not rows.size or (np.diff(rows, axis=1) > 0).any() or rows[:, -1].any():
        raise InputError(f"losses of shape {rows.shape} must be (images, levels), not rise along levels, and end at 0")
    own = float(check.lower_bound(level, "level"))
    m = len(rows)
    if (m + 1) * Fraction(own) < 1:
        raise InputError(_too_few(m, own))
    # Adding m + 1 numbers that are not negative errs by at most m units of 2^-53, relative; each of them by one more.
    sums = (rows.sum(axis=0) + 1.0) * (1.0 + (m + 4) * 2.0**-52)
    good = np.append(sums[:-1] <= (m + 1) * own * (1 - 2.0**-51), True)
    return int(np.argmax(good))


def class_scores(probabilities: ArrayLike, score: str) -> FloatArray:
    """Nonconformity of every class of one noisy copy; the smaller, the better the class fits.

    ``"lac"``: 1 - p_y. ``"aps"``: the probability of the classes that rank at least as high as y, itself included, as 1
    less the sum of those that rank lower, so that the last class has exactly 1 whatever the rounding of the others:
    deterministic, not randomised, so its sets are a little larger than randomised ones, and cover more. Of equal
    probabilities the lower class ranks first. Sums are correctly rounded (``math.fsum``), so that equal probabilities
    give equal scores everywhere.

    Args:
        probabilities: ``(K,)``, at least 0.
        score: one of :data:`SCORE_NAMES`.

    Raises:
        InputError: an unknown score, or no list of probabilities.

    >>> class_scores([0.5, 0.25, 0.25], "aps").tolist()
    [0.5, 0.75, 1.0]
    """
    if score not in SCORE_NAMES:
        raise InputError(f"score {score!r:.40} is unknown; use one of {', '.join(SCORE_NAMES)}")
    p = check.unit("probabilities", probabilities)
    if p.ndim != 1 or not p.size:
        raise InputError(f"probabilities must be one number a class, but have shape {p.shape}")
    if score == "lac":
        return np.asarray(1.0 - p, dtype=np.float64)
    order = np.argsort(-p, kind="stable")
    found = np.empty(len(p))
    for rank, place in enumerate(order):
        found[place] = 1.0 - math.fsum(p[order[rank + 1 :]])
    return found


def _too_few(m: int, level: float) -> str:
    needed = images_needed(level)
    said = (
        f"{needed} are needed" if needed else "no number of them is enough; ask for a smaller radius or a larger sigma"
    )
    return f"{m} calibration images are too few at level {level:.6g}: {said}"
