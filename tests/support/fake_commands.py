"""Stand-ins for ``axolotl train`` and ``lm_eval`` that do at once what the real ones leave behind, and keep a record.

The real ones take tens of seconds to start; `tests/e2e` runs those.
"""

from __future__ import annotations

import os
import stat
import sys
from pathlib import Path

import pytest

_AXOLOTL = """
import json, os, sys
from pathlib import Path
from sftkey.stages.marker import MARKER_FILE, RUN_FILE, SCHEMA
from sftkey.util.files import write_atomically
from sftkey.recipes.settings import training_settings
from sftkey.stages.handover import data_identity, start_from, template_fingerprint, tokenizer_file_sha256
from sftkey.recipes.load import load_recipe
sys.path.insert(0, os.environ["FAKE_TESTS"])
from sftkey.stages.chain import Override, _apply

arguments = sys.argv[1:]
with open(os.environ["FAKE_RECORD"], "a") as record:
    record.write(json.dumps(["axolotl", *arguments]) + "\\n")
recipe = Path(arguments[1])
if arguments[0] == "merge-lora":
    output = Path(load_recipe(recipe)["output_dir"])
    if not os.environ.get("FAKE_MERGE_FAILS"):
        write_atomically(output / "merged" / MARKER_FILE, json.loads((output / MARKER_FILE).read_text()) | {
            "merged": {"adapter": str(output)}})
    sys.exit(bool(os.environ.get("FAKE_MERGE_FAILS")))
assert arguments[0] == "train"
sys.stdout.write(os.environ.get("FAKE_OUTPUT", ""))
sys.stdout.flush()
fail = os.environ.get("FAKE_FAIL", "")
if fail and fail in recipe.name:
    print("Traceback (most recent call last):")
    print("torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2 GiB")
    print("subprocess.CalledProcessError: Command died")
    sys.exit(1)
cfg = {**load_recipe(recipe), "axolotl_config_path": str(recipe)}
options = arguments[2 : arguments.index("--") if "--" in arguments else None]
for name, value in zip(options[::2], options[1::2]):
    if name != "--launcher":
        _apply(Override(name[2:].replace("-", "_"), value, ()), cfg)
before = start_from(cfg)
output = Path(cfg["output_dir"])
if os.environ.get("FAKE_INTERRUPTED", "") == recipe.name:
    write_atomically(output / RUN_FILE, {"schema": SCHEMA, "settings": training_settings(cfg)})
    sys.exit(0)
write_atomically(output / MARKER_FILE, {
    "schema": SCHEMA, "finished_at": f"{len(open(os.environ['FAKE_RECORD']).readlines())}", "method": cfg["sftkey_method"],
    "settings": training_settings(cfg), "base_model": cfg["base_model"],
    "after": before and {
        "output_dir": str(before.output_dir), "finished_at": before.marker.finished_at, "stage": before.marker.content,
    },
    "tags": "text",
    "recipe": {"name": recipe.name, "config": cfg},
    "chat_template": template_fingerprint(cfg), "tokenizer": {"sha256": tokenizer_file_sha256(output)},
    "data": data_identity(cfg), "training": {"steps": 12, "losses": {"loss": 0.25}},
})
"""

_LM_EVAL = """
import json, os, sys
from pathlib import Path
arguments = sys.argv[1:]
with open(os.environ["FAKE_RECORD"], "a") as record:
    record.write(json.dumps(["lm_eval", *arguments]) + "\\n")
sys.stdout.write(os.environ.get("FAKE_EVAL_OUTPUT", ""))
if os.environ.get("FAKE_EVAL_FAILS"):
    print("ValueError: no such model")
    sys.exit(1)
value = lambda name: arguments[arguments.index(name) + 1]
folder = Path(value("--output_path")) / "some__model"
folder.mkdir(parents=True, exist_ok=True)
results = {task: {"alias": task, "acc,none": 0.5, "acc_stderr,none": 0.1, "fmt,none": 1.0, "score,none": 0.65}
           for task in value("--tasks").split(",")}
number = len(list(folder.iterdir()))
(folder / f"results_2026-01-01T00-00-0{number}.json").write_text(json.dumps(
    {"results": results, "n-samples": {task: {"original": 10, "effective": 4} for task in results}}))
"""


def install(folder: Path, record: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Put the stand-ins first on the path.

    Args:
        folder: Where to write them.
        record: Each call is added here as a JSON list.
        monkeypatch: Sets the environment.
    """
    folder.mkdir()
    for name, code in (("axolotl", _AXOLOTL), ("lm_eval", _LM_EVAL)):
        path = folder / name
        path.write_text(f"#!{sys.executable}\n{code}", encoding="utf-8")
        path.chmod(path.stat().st_mode | stat.S_IXUSR)
    own = str(Path(sys.executable).parent)
    monkeypatch.setenv("PATH", os.pathsep.join([str(folder), own, os.environ["PATH"]]))
    monkeypatch.setenv("FAKE_RECORD", str(record))
    monkeypatch.setenv("FAKE_TESTS", str(Path(__file__).parent))
