"""Data sets by name: lazily, and with an error that helps."""

from __future__ import annotations

import subprocess
import sys

import pytest
from sftkey.datasets.registry import DATASETS, OWN_DATA, dataset
from sftkey.util.errors import UserError


@pytest.mark.parametrize("name", DATASETS)
def test_a_data_set_knows_its_name_and_how_it_is_evaluated(name: str) -> None:
    found = dataset(name)
    assert found.name == name
    assert found.path
    assert found.question is not None
    assert found.reference is not None
    assert (found.test_split is None) == (found.held_out is not None)


def test_the_four_of_the_paper() -> None:
    assert {name: (dataset(name).path, dataset(name).config) for name in DATASETS} == {
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


def test_nothing_heavy_is_imported() -> None:
    code = (
        "import sys; from sftkey.datasets.registry import DATASETS, dataset; [dataset(name) for name in DATASETS]; "
        "print([name for name in ('torch', 'transformers', 'datasets', 'axolotl', 'lm_eval') if name in sys.modules])"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"
