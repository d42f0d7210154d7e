"""A marker may be a stranger's: whatever a field of it says stays text, in every file and on the terminal."""

from __future__ import annotations

import contextlib
import copy
import json
import random
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner
from packaging.requirements import Requirement
from sftkey.cli.main import sftkey
from sftkey.stages.card import CARD_FILE, update_card
from sftkey.stages.marker import MARKER_FILE, Marker
from sftkey.stages.share import make_bundle
from sftkey.util.errors import UserError
from support.finished_stages import finish, recipe, write_results

PAYLOADS = {
    "line break": "1.0\nevil-package\nbase_model: evil",
    "carriage return": "1.0\r\nevil-package\rbase_model: evil",
    "other line ends": "1.0\u2028evil-package\x85base_model: evil\x0bevil: 1",
    "HTML": "1.0<img src=x onerror=alert(1)><script>alert(1)</script>",
    "link": "1.0 [evil](javascript:alert(1)) ![evil](http://evil) <javascript:alert(1)> [evil]: javascript:alert(1)",
    "Markdown": "1.0\n\n# evil\n\n```\nevil\n```\n| evil | evil |\n---\nevil: evil\n---",
    "terminal": "1.0\x1b]0;evil\x07\x1b[2J\x9b31mevil\x7f\x08\x00",
    "direction": "1.0\u202eevil\u2066\u200f",
    "template": "1.0{{ evil }}{% evil %}${evil}`evil`$(evil)",
    "path": "../../../evil/x\\evil",
    "long": "1.0" + "evil " * 20_000,
}
JUNK = [None, True, 7, -1.5, [], {}, ["x"], {"x": "y"}, 10**30, ""]


def marker_of(outputs: Path) -> dict[str, Any]:
    return json.loads((outputs / "stage2" / MARKER_FILE).read_text())


def paths_in(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Where every value of a marker is, inner ones too."""
    if path:
        yield path
    parts = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, part in parts:
        yield from paths_in(part, (*path, key))


def replaced(value: Any, path: tuple[Any, ...], new: Any) -> Any:
    """A copy with the value at a path replaced."""
    value = copy.deepcopy(value)
    inner = value
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = new
    return value


@pytest.fixture
def outputs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two stages with everything in their markers that a marker can have, one evaluated."""
    monkeypatch.chdir(tmp_path)
    root = Path("outputs")
    more = {
        "id": "one",
        "base_model_commit": "0" * 40,
        "chat_template": {"name": "thinking_answer", "sha256": "0" * 64},
        "tokenizer": {"sha256": "1" * 64, "eos_token": "<|im_end|>", "size": 151_936},
        "settings": {"learning_rate": 5e-6, "optimizer": "adamw_torch"},
        "later": {"versions": ["x"]},
    }
    first = finish(root / "stage1", recipe("sft-tag", "outputs/stage1"), "one.yml", **more)
    first_marker = json.loads((root / "stage1" / MARKER_FILE).read_text())
    config = recipe("key-tag", "outputs/stage2", base_model="outputs/stage1", sftkey_after="one.yml", seed=1)
    finish(root / "stage2", config, "two.yml", first, **{**more, "id": "two"})
    marker = marker_of(root)
    marker["after"] |= {"id": "one", "stage": first_marker}
    (root / "stage2" / MARKER_FILE).write_text(json.dumps(marker))
    write_results(root / "stage2/eval/model", "sftkey_gsm8k", 3, 0.83)
    return root


def check_text(name: str, text: str) -> None:
    bad = [c for c in text if not (c.isprintable() or c == "\n")]
    assert not bad, (name, bad)


def check_card(text: str) -> None:
    check_text(CARD_FILE, text)
    metadata, _, body = text.removeprefix("---\n").partition("\n---\n")
    assert set(yaml.safe_load(metadata)) <= {"tags", "base_model", "datasets", "library_name", "model-index"}
    assert not re.search(r"<(?:img|script|javascript)", metadata)
    outside = re.sub(r"^```\n.*?^```$", "", body, flags=re.M | re.S)
    assert not re.search(r"(?<!\\)<(?!!--|br>)[a-zA-Z]", outside), outside
    assert not re.search(r"(?<!\\)\]\((?!recipes/[\w.-]+\)|https://github\.com/axolotl-ai-cloud)", outside)
    assert not re.search(r"^\s*\[[^\]]*\]:", body, flags=re.M)
    headings = [line for line in outside.splitlines() if line.startswith("#")]
    assert len(headings) <= 8, headings
    assert not any(line.lstrip().startswith(("evil", "# evil", "---")) for line in outside.splitlines())


def check_bundle(texts: dict[str, str]) -> None:
    names = [name for name in texts if name.startswith("recipes/")]
    assert 1 <= len(names) <= 2
    for name in names:
        assert re.fullmatch(r"recipes/[\w-][\w.-]{0,254}", name)
        shared = yaml.safe_load(texts[name])
        assert "evil" not in shared
        header = re.match(r"(?:#.*\n)*", texts[name])
        assert header is not None
        check_text(name, header[0])
    for line in texts["requirements.txt"].splitlines():
        check_text("requirements.txt", line)
        if not line.startswith("#"):
            assert Requirement(line).name in {"sftkey", "axolotl", "torch", "transformers", "datasets"}
            assert "evil" not in Requirement(line).name
            assert str(Requirement(line).specifier).startswith("==")
    check_card(texts[CARD_FILE])
    json.loads(texts["sftkey_share.json"])


ALL = " ".join(text for name, text in PAYLOADS.items() if name != "long")


@pytest.mark.parametrize("payload", [ALL, *(pytest.param(text, marks=pytest.mark.slow) for text in PAYLOADS.values())])
def test_no_field_of_a_marker_becomes_more_than_text(outputs: Path, payload: str) -> None:
    """Every field, with every payload: into the bundle, and what is printed."""
    marker, path = marker_of(outputs), outputs / "stage2" / MARKER_FILE
    places = [*paths_in(marker), ("extra",), ("versions", "extra"), ("training", "extra")]
    refused = []
    for place in places:
        path.write_text(json.dumps(replaced(marker, place, payload)))
        try:
            bundle = make_bundle(outputs / "stage2")
        except UserError as error:
            refused.append(str(error))
            continue
        check_bundle(bundle.texts)
    assert len(places) > 100
    assert all(len(error) < 2000 for error in refused)
    assert len(refused) < 0.6 * len(places)


def test_no_field_of_a_marker_reaches_the_terminal_as_a_command(outputs: Path) -> None:
    marker, path = marker_of(outputs), outputs / "stage2" / MARKER_FILE
    for place in (place for place in paths_in(marker) if len(place) <= 2 and place[0] not in ("recipe", "settings")):
        path.write_text(json.dumps(replaced(marker, place, PAYLOADS["terminal"] + PAYLOADS["direction"])))
        result = CliRunner().invoke(sftkey, ["share", str(outputs / "stage2"), "--dry-run"])
        assert result.exit_code in (0, 1)
        assert result.exception is None or isinstance(result.exception, SystemExit), place
        check_text(str(place), result.output)
        (outputs / "stage2" / CARD_FILE).unlink(missing_ok=True)
        update_card(outputs / "stage2")
        if (outputs / "stage2" / CARD_FILE).exists():
            check_card((outputs / "stage2" / CARD_FILE).read_text())


@pytest.mark.parametrize("share", [0.05, pytest.param(1.0, marks=pytest.mark.slow)])
def test_every_other_shape_is_an_error_or_harmless(outputs: Path, share: float) -> None:
    marker, path = marker_of(outputs), outputs / "stage2" / MARKER_FILE
    pairs = [(place, junk) for place in paths_in(marker) for junk in JUNK]
    for place, junk in random.Random(0).sample(pairs, int(share * len(pairs))):
        path.write_text(json.dumps(replaced(marker, place, junk)))
        with contextlib.suppress(UserError):
            check_bundle(make_bundle(outputs / "stage2").texts)


def test_what_another_version_adds_is_kept_as_text(outputs: Path) -> None:
    path = outputs / "stage2" / MARKER_FILE
    path.write_text(json.dumps({**marker_of(outputs), "added": {"deep\x1b": ["a\nb", 3]}}))
    marker = Marker.read(outputs / "stage2")
    assert marker is not None
    assert marker.content["added"] == {"deep": ["a b", 3]}
    assert marker.recipe.config == marker_of(outputs)["recipe"]["config"]


def test_a_command_in_a_card_can_be_pasted(outputs: Path) -> None:
    path = outputs / "stage2" / MARKER_FILE
    for text in PAYLOADS.values():
        path.write_text(
            json.dumps(replaced(marker_of(outputs), ("after", "stage", "recipe", "config", "base_model"), text))
        )
        for line in (
            make_bundle(outputs / "stage2").texts[CARD_FILE].partition("```\n")[2].partition("\n```")[0].splitlines()
        ):
            assert shlex.split(line)[0] in ("pip", "axolotl", "lm_eval")
