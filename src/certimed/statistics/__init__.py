"""Exact bounds for certificates: numpy and scipy only, float64, rounded outwards. Takes integers, never tensors."""

from certimed.statistics.betting import betting_thresholds, log_wealth
from certimed.statistics.binomial import (
    abstains,
    binomial_tail,
    clopper_pearson_lower,
    clopper_pearson_upper,
    predict_p_value,
    probability_for_radius,
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
from certimed.statistics.dataset import certified_accuracy_lower, difference_interval, proportion_interval
from certimed.statistics.multiplicity import (
    alpha_split,
    bonferroni_threshold,
    count_threshold,
    holm_threshold,
    holm_thresholds,
    minimum_count,
    radius_map_bonferroni,
)
from certimed.statistics.order import band, band_index, end_index, samples_for_end
from certimed.statistics.planning import (
    CORRECTION_NAMES,
    Correction,
    radius_ceiling,
    require_samples_for_tau,
    samples_for_radius,
    samples_for_radius_at,
    samples_for_tau,
)
from certimed.statistics.sequential import (
    crossing_probability,
    look_sizes,
    sequential_thresholds,
    spending,
)
from certimed.statistics.variation import lower_less, p_value_more, upper_more

__all__ = [
    "BOUND_NAMES",
    "CORRECTION_NAMES",
    "BoundName",
    "ClassBound",
    "Correction",
    "abstains",
    "alpha_split",
    "band",
    "band_index",
    "best_of_both",
    "betting_thresholds",
    "binomial_tail",
    "bonferroni_threshold",
    "certified_accuracy_lower",
    "class_bound",
    "clopper_pearson_lower",
    "clopper_pearson_upper",
    "count_threshold",
    "crossing_probability",
    "difference_interval",
    "end_index",
    "holm_threshold",
    "holm_thresholds",
    "log_wealth",
    "look_sizes",
    "lower_less",
    "minimum_count",
    "one_sided_bound",
    "p_value_more",
    "predict_p_value",
    "probability_for_radius",
    "proportion_interval",
    "radius_ceiling",
    "radius_from_lower",
    "radius_map_bonferroni",
    "radius_two_sided",
    "require_samples_for_tau",
    "samples_for_end",
    "samples_for_radius",
    "samples_for_radius_at",
    "samples_for_tau",
    "sequential_thresholds",
    "spending",
    "two_sided_bound",
    "upper_more",
]
