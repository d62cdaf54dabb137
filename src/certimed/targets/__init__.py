"""What is certified: the class of an image, the class of every pixel, where measurements stay, sets of classes."""

from certimed.targets.classes import Classes, default_batch_size
from certimed.targets.interval import Interval, check_radii
from certimed.targets.pixels import Pixels, check_tau, winning_class
from certimed.targets.sets import ProbabilityTally, Sets
from certimed.targets.target import Tally, Target, check_scores

__all__ = [
    "Classes",
    "Interval",
    "Pixels",
    "ProbabilityTally",
    "Sets",
    "Tally",
    "Target",
    "check_radii",
    "check_scores",
    "check_tau",
    "default_batch_size",
    "winning_class",
]
