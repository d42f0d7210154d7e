"""Nothing of the report, and no pandas, is imported by what trains and what a training ends with."""

from __future__ import annotations

import subprocess
import sys

from support.output_roots import Outputs

# transformers' Trainer imports pandas by itself, so it counts who imports it, not that it is there.
CODE = """
import builtins, importlib, pkgutil, sys
from pathlib import Path

real, found = builtins.__import__, []

def spy(name, globals=None, *rest, **options):
    importer = (globals or {}).get("__name__", "")
    if name.partition(".")[0] == "pandas" and importer.partition(".")[0] == "sftkey":
        found.append(importer)
    return real(name, globals, *rest, **options)

builtins.__import__ = spy
for room in ("util", "format", "datasets", "training", "recipes", "stages"):
    for module in pkgutil.walk_packages(importlib.import_module(f"sftkey.{room}").__path__, f"sftkey.{room}."):
        importlib.import_module(module.name)

from sftkey.stages.card import update_card
update_card(Path(sys.argv[1]))
import sftkey.evaluation.results
print(found, [name for name in sys.modules if name.startswith("sftkey.report")])
import sftkey.report.write
print(len(found) > 3, len([name for name in sys.modules if name.startswith("sftkey.report")]) > 10)
"""


def test_training_and_its_card_import_nothing_of_it(outputs: Outputs) -> None:
    directory = outputs.stage("stage1", "sft-tag")
    outputs.evaluate("outputs/stage1", "sftkey_gsm8k", [(1.0, 1.0)] * 3, where="stage1/eval")
    command = [sys.executable, "-c", CODE, str(directory)]
    finished = subprocess.run(command, capture_output=True, text=True)
    assert finished.returncode == 0, finished.stderr
    found = finished.stdout
    assert found.splitlines() == ["[] []", "True True"]
    assert "| 1.0000 |" in (directory / "README.md").read_text()
