"""Evidence packs: runs as one folder that an assessor can read, check and pass on."""

from certimed.evidence.check import check_pack
from certimed.evidence.pack import Pack, pack

__all__ = ["Pack", "check_pack", "pack"]
