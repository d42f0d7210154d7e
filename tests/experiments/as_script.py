"""Makes `experiments` and `sftkey` importable for a file of this folder that is run as a script, from a checkout."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent.parent / "plugins"))
# Not by tests/ on the path: where the library datasets isn't installed, the folder tests/datasets would pass for it.
_spec = importlib.util.spec_from_file_location(
    "experiments", HERE / "__init__.py", submodule_search_locations=[str(HERE)]
)
assert _spec is not None
sys.modules["experiments"] = importlib.util.module_from_spec(_spec)
