"""Both stages with TRL: `SFTKeyTrainer`, a ``SFTTrainer`` with the segment loss, the hand-over and the marker."""

from sftkey.util.extras import extra

with extra("trl"):
    from sftkey.trl.trainer import SFTKeyTrainer

__all__ = ["SFTKeyTrainer"]
