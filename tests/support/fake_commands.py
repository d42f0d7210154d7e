"""Stand-ins for ``axolotl train`` and ``lm_eval`` that do at once what the real ones leave behind, and keep a record.

The real ones take tens of seconds to start; `tests/e2e` runs those.
"""

from __future__ import annotations

import json
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
from sftkey.stages.handover import start_from, template_fingerprint, tokenizer_file_sha256
from sftkey.stages.same_data import data_identity
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
    "data": data_identity(cfg), "training": {
        "steps": 12, "losses": {"loss": 0.25}, "seconds": json.loads(os.environ.get("FAKE_SECONDS", "{}")).get(recipe.stem)},
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

_LM_EVAL_WITH_ITEMS = """
import hashlib, json, os, random, sys
from pathlib import Path
arguments = sys.argv[1:]
with open(os.environ["FAKE_RECORD"], "a") as record:
    record.write(json.dumps(["lm_eval", *arguments]) + "\\n")
value = lambda name: arguments[arguments.index(name) + 1]
place = value("--output_path")
shares = json.loads(os.environ["FAKE_ACC"])
share = next(share for name, share in shares.items() if name in place)
folder = Path(place) / "some__model"
folder.mkdir(parents=True, exist_ok=True)
number = len(list(folder.iterdir()))
results = {}
for task in value("--tasks").split(","):
    lines = []
    for item in range(40):
        luck = random.Random(f"{place.removesuffix('-equal-compute/eval')} {item}").random()
        right = 0.6 * luck + 0.4 * random.Random(item).random() < share
        formed = item % 8 > 0
        text = f"<Thinking>of {item}</Thinking><Answer>{item if right else 'x'}</Answer>" if formed else "<Thinking>on and on"
        lines.append({
            "doc_id": item, "question": f"q{item}", "reference": str(item), "resps": [[text]], "filter": "none",
            "acc": float(right), "fmt": float(formed), "score": 0.7 * right + 0.3 * formed,
            "format_failure": None if formed else "thinking cut off",
            "verdict": "same" if right else "different", "decided_by": "rule", "extracted": str(item),
        })
    (folder / f"samples_{task}_2026-01-01T00-00-0{number}.jsonl").write_text(
        "".join(json.dumps(line) + "\\n" for line in lines))
    means = {f"{name},none": sum(line[name] for line in lines) / 40 for name in ("acc", "fmt", "score")}
    results[task] = {"alias": task, **means}
(folder / f"results_2026-01-01T00-00-0{number}.json").write_text(json.dumps(
    {"results": results, "config": {"model_args": value("--model_args")}, "date": 1.0 + number,
     "n-samples": {task: {"original": 40, "effective": 40} for task in results}}))
"""

_PYTHON = """
import hashlib, json, os, sys
from pathlib import Path
module, stage, file = sys.argv[2:5]
with open(os.environ["FAKE_RECORD"], "a") as record:
    record.write(json.dumps(["python", *sys.argv[1:]]) + "\\n")
if os.environ.get("FAKE_NO_REFERENCE"):
    print("Error: the recipe has no test_datasets")
    sys.exit(1)
marker = json.loads((Path(stage) / "sftkey_stage.json").read_text())
Path(file).parent.mkdir(parents=True, exist_ok=True)
Path(file).write_text(json.dumps({
    "schema": 1, "stage_id": marker.get("id"), "asked_for": int(sys.argv[sys.argv.index("--rows") + 1]),
    "items": [
        {"key": hashlib.blake2b(f"q{item}\\0{item}".encode(), digest_size=16).hexdigest() + "-0",
         "acc": float(item % 4 > 0), "thinking": f"of {item}"} for item in range(20)
    ],
}))
"""


def install_with_items(folder: Path, monkeypatch: pytest.MonkeyPatch, shares: dict[str, float]) -> None:
    """After `install`: an ``lm_eval`` that logs items, and a Python whose answers after the reference thinking are made up.

    Args:
        folder: Where the stand-ins are.
        monkeypatch: Sets the environment.
        shares: About which share of the items is right, by a part of the output path; the first that fits counts.
    """
    for name, code in (("lm_eval", _LM_EVAL_WITH_ITEMS), ("python", _PYTHON)):
        path = folder / name
        path.write_text(f"#!{sys.executable}\n{code}", encoding="utf-8")
        path.chmod(path.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("FAKE_ACC", json.dumps(shares))
    monkeypatch.setattr(sys, "executable", str(folder / "python"))


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
