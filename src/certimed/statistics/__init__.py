"""Exact bounds for certificates: numpy and scipy only, float64, rounded outwards. Takes integers, never tensors."""

from certimed.statistics.binomial import (
    abstains,
    binomial_tail,
    clopper_pearson_lower,
    clopper_pearson_upper,
    predict_p_value,
    radius_from_lower,
    radius_two_sided,
)
from certimed.statistics.classes import (
    BOUND_NAMES,
    BoundName,
    ClassBound,
    best_of_both,
    class_bound,
    one_sided_bound,
    two_sided_bound,
)

__all__ = [
    "BOUND_NAMES",
    "BoundName",
    "ClassBound",
    "abstains",
    "best_of_both",
    "binomial_tail",
    "class_bound",
    "clopper_pearson_lower",
    "clopper_pearson_upper",
    "one_sided_bound",
    "predict_p_value",
    "radius_from_lower",
    "radius_two_sided",
    "two_sided_bound",
]
