"""Attacks on smoothed models: the upper side of every certificate, and a standing test of its soundness."""

from certimed.attacks.ascent import Ball, Perturbed, ascend
from certimed.attacks.goals import AnotherClass, AnotherMask, Goal, Judged, predict
from certimed.attacks.record import Attack, AttackFile
from certimed.attacks.run import AttackWatcher, attack, attack_certificate, judge_again
from certimed.attacks.sandwich import Sandwich
from certimed.attacks.search import Found, Search, Trial
from certimed.attacks.smoothed import Attacked
from certimed.attacks.spec import AttackSpec

__all__ = [
    "AnotherClass",
    "AnotherMask",
    "Attack",
    "AttackFile",
    "AttackSpec",
    "AttackWatcher",
    "Attacked",
    "Ball",
    "Found",
    "Goal",
    "Judged",
    "Perturbed",
    "Sandwich",
    "Search",
    "Trial",
    "ascend",
    "attack",
    "attack_certificate",
    "judge_again",
    "predict",
]
