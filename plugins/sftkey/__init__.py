"""sftkey: two-stage supervised fine-tuning with emphasis on the answer tokens, for Axolotl and lm-eval."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sftkey.util.version import __version__ as __version__

if TYPE_CHECKING:
    from sftkey.axolotl.plugin import SFTKeyPlugin as SFTKeyPlugin

__all__ = ["SFTKeyPlugin", "__version__"]


def __getattr__(name: str) -> Any:
    # A recipe names the plugin `sftkey.SFTKeyPlugin`; the core must stay importable where axolotl is not installed.
    if name == "SFTKeyPlugin":
        from sftkey.axolotl.plugin import SFTKeyPlugin

        return SFTKeyPlugin
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
