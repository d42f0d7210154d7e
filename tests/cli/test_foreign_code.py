"""A recipe of somebody else's: looking at it runs none of the code that it names, by whatever key."""

from __future__ import annotations

import json
import pickle
import sys
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from sftkey.cli.main import sftkey
from support.axolotl_recipes import stage2_of, write_recipe
from support.run_place import STAGE1, Place, succeeded

MODULE = "from pathlib import Path\nPath({ran!r}).write_text(__name__)\n"
TOKENIZER = "from transformers import Qwen2TokenizerFast\nclass TheirTokenizer(Qwen2TokenizerFast):\n    pass\n"


class Pickled:
    def __reduce__(self) -> Any:
        return (exec, (f"open({str(Path.cwd() / 'ran')!r}, 'w').write('pickle')",))


@pytest.fixture
def strangers(place: Place, shared_dir: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    """A folder with code that leaves a file `ran` when it runs, on the path as a checkout often is."""
    code = MODULE.format(ran=str(place.folder / "ran"))
    (place.folder / "theirs").mkdir()
    (place.folder / "theirs/__init__.py").write_text(code)
    (place.folder / "theirs/rows.py").write_text("")
    model = place.folder / "model"
    model.mkdir()
    for file in (shared_dir / "tokenizers/qwen3").iterdir():
        if file.name != "tokenizer_config.json":
            (model / file.name).symlink_to(file)
    settings = json.loads((shared_dir / "tokenizers/qwen3/tokenizer_config.json").read_text())
    settings |= {"auto_map": {"AutoTokenizer": [None, "theirs.TheirTokenizer"]}, "tokenizer_class": "TheirTokenizer"}
    (model / "tokenizer_config.json").write_text(json.dumps(settings))
    (model / "config.json").write_text(json.dumps({"model_type": "qwen3", "hidden_size": 8}))
    (model / "theirs.py").write_text(code + TOKENIZER)
    rows = [{"question": "2+3?", "thinking": "2 and 3.", "answer": "5"}]
    (place.folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (place.folder / "rows.pkl").write_bytes(pickle.dumps(Pickled()))
    monkeypatch.syspath_prepend(str(place.folder))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_DATASETS_CACHE", str(place.folder / "cache"))
    yield place
    for name in [name for name in sys.modules if name.partition(".")[0] == "theirs"]:
        del sys.modules[name]


ROWS = {"path": "rows.jsonl", "ds_type": "json", "split": "train", "type": "sftkey.datasets.columns"}
KEYS: dict[str, tuple[dict[str, Any], str]] = {
    "model": ({"trust_remote_code": True}, "trust_remote_code: true"),
    "type": ({"datasets": [{**ROWS, "type": "theirs.rows"}]}, "datasets[0]: type: theirs.rows"),
    "test type": ({"test_datasets": [ROWS, {**ROWS, "type": "theirs.rows"}]}, "test_datasets[1]: type: theirs.rows"),
    "entry": ({"datasets": [{**ROWS, "trust_remote_code": True}]}, "datasets[0]: trust_remote_code: true"),
    "pickle": (
        {"datasets": [{**ROWS, "path": "rows.pkl", "ds_type": "pandas"}]},
        "datasets[0]: pandas files are pickles",
    ),
    "pickle by path": (
        {"datasets": [{**ROWS, "path": "pandas", "data_files": "rows.pkl"}]},
        "pandas files are pickles",
    ),
}
TRAINING_KEYS: dict[str, tuple[dict[str, Any], str]] = {
    "plugin": ({"plugins": ["theirs.Plugin", "sftkey.SFTKeyPlugin"]}, "plugins: theirs.Plugin"),
}


def recipe(place: Place, **keys: Any) -> dict[str, Any]:
    settings = {**STAGE1, "base_model": "./model", "sequence_len": 512, "datasets": [ROWS], **keys}
    write_recipe(place.folder / "stage1.yml", settings)
    write_recipe(place.folder / "stage2.yml", stage2_of(settings))
    return settings


def inspect(*arguments: str) -> Result:
    return CliRunner().invoke(sftkey, ["inspect", *arguments])


@pytest.mark.parametrize("name", KEYS)
def test_inspect_refuses_to_run_it_unless_told(strangers: Place, name: str) -> None:
    keys, said = KEYS[name]
    recipe(strangers, **keys)
    for file in ("stage1.yml", "stage2.yml"):
        result = inspect(file)
        assert result.exit_code == 1
        assert said in result.output
        assert "give --trust-remote-code if you know and trust that code" in result.output
    assert not (strangers.folder / "ran").exists()


@pytest.mark.parametrize("name", ["model", "type"])
def test_it_runs_when_told(strangers: Place, name: str) -> None:
    """The control: the same recipe with the user's word runs the code, so that refusing it meant something."""
    recipe(strangers, **KEYS[name][0])
    inspect("stage1.yml", "--trust-remote-code")
    assert (strangers.folder / "ran").exists()


def test_a_model_with_code_and_a_recipe_without_a_word_runs_none(strangers: Place) -> None:
    recipe(strangers)
    inspect("stage1.yml")
    assert not (strangers.folder / "ran").exists()


@pytest.mark.parametrize("name", [*KEYS, *TRAINING_KEYS])
def test_a_dry_run_runs_none_and_says_so(strangers: Place, name: str) -> None:
    keys, said = (KEYS | TRAINING_KEYS)[name]
    recipe(strangers, **keys)
    output = succeeded(strangers.run("run", "stage2.yml", "--dry-run")).output
    assert "runs code that the recipe names: " in output
    assert said in output
    plan = json.loads(succeeded(strangers.run("run", "stage2.yml", "--dry-run", "--json")).stdout)
    assert any(said in note for note in plan[0]["notes"])
    assert not (strangers.folder / "ran").exists()
    assert strangers.calls() == []


def test_a_dry_run_still_notices_a_package_that_is_not_there(strangers: Place) -> None:
    recipe(strangers, datasets=[{**ROWS, "type": "their.rows"}])
    result = strangers.run("run", "stage1.yml", "--dry-run")
    assert result.exit_code == 1
    assert "datasets[0]: type 'their.rows': there is no package 'their' here" in result.output


def test_writing_a_recipe_runs_none(strangers: Place) -> None:
    succeeded(strangers.run("recipe", "qwen3_8b_stage2", "--model-id", "./model", "trust_remote_code=true"))
    assert not (strangers.folder / "ran").exists()


def test_the_plan_remarks_on_where_outputs_go(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    home = place.folder / "home"
    home.mkdir()
    monkeypatch.setenv("HOME", str(home))
    for output_dir, remark in (
        (str(home), "is the home directory itself"),
        ("~", "is the home directory itself"),
        ("/", "is the root itself"),
        ("/etc/out", "is in /etc, a folder of the system"),
        ("/usr/local/out", "is in /usr, a folder of the system"),
        ("/srv/out", "is outside the working directory"),
        ("../out", "is outside the working directory"),
        (".", "is the working directory itself"),
        ("out/stage1", None),
        (str(place.folder / "out/stage1"), None),
    ):
        write_recipe(place.folder / "stage1.yml", {**STAGE1, "output_dir": output_dir})
        plan = json.loads(succeeded(place.run("run", "stage1.yml", "--dry-run", "--json")).stdout)
        assert plan[0]["notes"] == ([f"output_dir: {output_dir} {remark}"] if remark else [])
