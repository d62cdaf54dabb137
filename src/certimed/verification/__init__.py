"""Check what a run, a certificate or a pack claims, by arithmetic that shares nothing with the code that wrote it.

Needs the ``verify`` extra (mpmath). Of certimed only :mod:`certimed.integrity` and :mod:`certimed.errors` are imported
here: neither statistics, nor scipy, nor torch.
"""

from certimed.verification.comparison import Comparison
from certimed.verification.packs import PackVerdict, is_pack, verify_pack
from certimed.verification.resampling import Redrawn, resample
from certimed.verification.verify import Verdict, verify

__all__ = ["Comparison", "PackVerdict", "Redrawn", "Verdict", "is_pack", "resample", "verify", "verify_pack"]
