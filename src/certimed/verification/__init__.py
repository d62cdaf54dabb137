"""Check what a run or a certificate claims, by arithmetic that shares nothing with the code that wrote it.

Needs the ``verify`` extra (mpmath). Of certimed only :mod:`certimed.integrity` and :mod:`certimed.errors` are imported
here: neither statistics, nor scipy, nor torch.
"""

from certimed.verification.comparison import Comparison
from certimed.verification.resampling import Redrawn, resample
from certimed.verification.verify import Verdict, verify

__all__ = ["Comparison", "Redrawn", "Verdict", "resample", "verify"]
