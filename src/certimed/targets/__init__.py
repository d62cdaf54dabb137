"""What is certified: the class of an image, or the class of every pixel. One file each."""

from certimed.targets.classes import Classes, default_batch_size
from certimed.targets.pixels import Pixels, check_tau, winning_class
from certimed.targets.target import Tally, Target, check_scores

__all__ = ["Classes", "Pixels", "Tally", "Target", "check_scores", "check_tau", "default_batch_size", "winning_class"]
