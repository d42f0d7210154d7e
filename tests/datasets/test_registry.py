"""Data sets by name: lazily, and with an error that helps."""

from __future__ import annotations

import importlib
import subprocess
import sys
from pathlib import Path

import pytest
from sftkey.datasets.registry import DATASETS, OWN_DATA, PAPER, dataset, find_dataset, source_of
from sftkey.util.errors import UserError


@pytest.mark.parametrize("name", DATASETS)
def test_a_data_set_knows_its_name_and_how_it_is_evaluated(name: str) -> None:
    found = dataset(name)
    assert found.name == name
    assert found.path
    assert found.title
    assert found.columns
    assert found.question is not None
    assert found.reference is not None
    assert (found.test_split is None) == (found.held_out is not None)


def test_the_four_of_the_paper() -> None:
    assert {name: (dataset(name).path, dataset(name).config) for name in PAPER} == {
        "gsm8k": ("openai/gsm8k", "main"),
        "openr1_math": ("open-r1/OpenR1-Math-220k", "default"),
        "openbookqa": ("allenai/openbookqa", "additional"),
        "cot_collection": ("kaist-ai/CoT-Collection", "en"),
    }


def test_an_unknown_name_is_answered_with_the_nearest() -> None:
    with pytest.raises(UserError, match="unknown data set 'openbook'; did you mean 'openbookqa'"):
        dataset("openbook")


@pytest.mark.parametrize("name", [*OWN_DATA, "", "../gsm8k"])
def test_what_has_no_published_data_is_refused(name: str) -> None:
    with pytest.raises(UserError, match=r"sftkey\.datasets\.columns or sftkey\.datasets\.messages"):
        dataset(name)


def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, text: str) -> str:
    """Write a module of another package; returns its dotted name."""
    (tmp_path / "their_lab").mkdir(exist_ok=True)
    (tmp_path / "their_lab" / f"{name}.py").write_text(text)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "their_lab", raising=False)
    return f"their_lab.{name}"


THEIRS = """
from dataclasses import replace
from sftkey.datasets.gsm8k import GSM8K
THEIRS = replace(GSM8K, name="theirs", path=None)
"""


def test_a_module_of_another_package_is_found_by_its_dotted_name(tmp_path, monkeypatch) -> None:
    assert find_dataset(module(tmp_path, monkeypatch, "one", THEIRS + "load = THEIRS.load")).name == "theirs"
    own_load = "from sftkey.datasets.columns import with_columns\nROWS = with_columns(None)\ndef load(*_): ..."
    assert find_dataset(module(tmp_path, monkeypatch, "two", own_load)).name == "columns"


@pytest.mark.parametrize("name", [*DATASETS, *OWN_DATA])
def test_the_modules_of_this_package_are_found_by_name_and_by_path(name: str) -> None:
    assert find_dataset(name) is find_dataset(f"sftkey.datasets.{name}")
    assert find_dataset(name).name == name


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "import no_such_thing",
            r"'their_lab.bad0' can't be imported \(ModuleNotFoundError: No module named 'no_such_",
        ),
        ("1 / 0", "'their_lab.bad1' can't be imported .ZeroDivisionError: division by zero.; install its package, or"),
        ("", "'their_lab.bad2' has no ReasoningDataset and no `load`; .* ends with `load = MY_DATA.load`"),
        (THEIRS, "'their_lab.bad3' has 2 ReasoningDataset and no `load`"),
        (THEIRS + "def load(*_): ...", "'their_lab.bad4' has 2 ReasoningDataset and a `load`"),
        ("def load(*_): ...", "'their_lab.bad5' has no ReasoningDataset and a `load`"),
    ],
)
def test_a_module_without_a_data_set_says_what_was_found(tmp_path, monkeypatch, text: str, message: str) -> None:
    name = f"bad{message.partition('bad')[2][0]}"
    with pytest.raises(UserError, match=message) as error:
        find_dataset(module(tmp_path, monkeypatch, name, text))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", ["no_such.module", ".gsm8k", "sftkey.datasets.gsm8k.x", "sftkey.datasets.base", "..x"])
def test_a_name_without_a_module_is_an_error_of_one_line(name: str) -> None:
    with pytest.raises(UserError) as error:
        find_dataset(name)
    assert "\n" not in str(error.value)


def test_the_source_is_that_of_the_package(tmp_path, monkeypatch) -> None:
    name = module(
        tmp_path, monkeypatch, "svamp", "import json\nimport sftkey\nimport beside\nfrom their_lab import common"
    )
    module(tmp_path, monkeypatch, "common", "to_example = 1")
    module(tmp_path, monkeypatch, "unused", "nobody_loads_it = 1")
    (tmp_path / "beside.py").write_text("of_another_package = 1")
    for loaded in ("their_lab.common", name, "beside"):
        monkeypatch.delitem(sys.modules, loaded, raising=False)
    importlib.import_module(name)
    # Another package's module under a name of this one.
    monkeypatch.setitem(sys.modules, "their_lab.vendored", sys.modules["beside"])
    assert source_of(name) == (
        "# their_lab.svamp\nimport json\nimport sftkey\nimport beside\nfrom their_lab import common\n\n"
        "# their_lab.common\nto_example = 1\n\n"
    )
    assert source_of("beside") == "# beside\nof_another_package = 1\n\n"
    monkeypatch.setattr("sftkey.datasets.registry.MAX_MODULES", 1)
    assert "common\nto_example" not in source_of(name)


@pytest.mark.parametrize("name", ["sftkey.datasets.gsm8k", "sftkey.datasets.base", "not.loaded"])
def test_for_this_package_its_version_stands(name: str) -> None:
    assert source_of(name) == ""


def test_nothing_heavy_is_imported() -> None:
    code = (
        "import sys; from sftkey.datasets.registry import DATASETS, dataset; [dataset(name) for name in DATASETS]; "
        "print([name for name in ('torch', 'transformers', 'datasets', 'axolotl', 'lm_eval') if name in sys.modules])"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"
