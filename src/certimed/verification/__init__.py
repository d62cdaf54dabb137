"""Check what a run or a certificate claims, by arithmetic that shares nothing with the code that wrote it.

Needs the ``verify`` extra (mpmath). Neither scipy, nor torch, nor :mod:`certimed.statistics` is imported here.
"""

from certimed.verification.resampling import Comparison, compare_counts, resample
from certimed.verification.verify import Verdict, verify

__all__ = ["Comparison", "Verdict", "compare_counts", "resample", "verify"]
