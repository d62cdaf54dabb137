"""Measurements: small functions from a mask (and the image) to one number, each with a unit."""

from certimed.measurements.measurement import KINDS, Measurement, measurement, parse_measurement
from certimed.measurements.scene import Scene

__all__ = ["KINDS", "Measurement", "Scene", "measurement", "parse_measurement"]
