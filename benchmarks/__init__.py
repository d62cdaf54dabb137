"""Measurements and studies; run as `python -m benchmarks.NAME`."""
