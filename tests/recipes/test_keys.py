"""The values of the plugin's keys are the methods and segments of format/."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError
from sftkey.format.methods import METHODS
from sftkey.format.segments import SEGMENT_GROUPS
from sftkey.recipes.keys import SFTKeyArgs


@pytest.mark.parametrize("name", METHODS)
def test_every_method_is_a_value(name: str) -> None:
    assert SFTKeyArgs(sftkey_method=name).sftkey_method == name
    assert f"{name}: {METHODS[name].summary}" in str(SFTKeyArgs.model_json_schema()["properties"]["sftkey_method"])


@pytest.mark.parametrize("name", SEGMENT_GROUPS)
def test_every_group_of_segments_has_a_weight(name: str) -> None:
    assert SFTKeyArgs(sftkey_segment_weights={name: 2}).sftkey_segment_weights == {name: 2.0}


@pytest.mark.parametrize(
    "keys",
    [{"sftkey_method": "key_tag"}, {"sftkey_segment_weights": {"prompt": 1}}, {"sftkey_segment_schedule": {"x": 1}}],
)
def test_others_are_refused(keys: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        SFTKeyArgs(**keys)
