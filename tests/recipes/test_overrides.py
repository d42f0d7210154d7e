"""``key=value``: what people type is read as they mean it, and set where they say."""

from __future__ import annotations

from typing import Any

import pytest
from sftkey.recipes.overrides import parse_override, set_key
from sftkey.util.errors import UserError


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-5", 1e-5),
        ("1.", 1.0),
        (".5", 0.5),
        ("-3", -3),
        ("010", 10),
        ("1_000", 1000),
        ("-1_0.5_0", -10.5),
        ("1_0e1", 100.0),
        ("0x1_F", 31),
        ("-0o17", -15),
        ("0b101", 5),
        ("0X10", "0X10"),
        ("0o8", "0o8"),
        ("_1", "_1"),
        ("1e1_0", "1e1_0"),
        ("{a: , b: [1_0]}", {"a": None, "b": [10]}),
        ("no", "no"),
        ("on", "on"),
        ("true", True),
        ("null", None),
        ("", None),
        ("2024-01-01", "2024-01-01"),
        ("12:30", "12:30"),
        ("a=b", "a=b"),
        ("'5'", "5"),
        ("[1, {a: 1e5}]", [1, {"a": 1e5}]),
    ],
)
def test_values(text: str, value: Any) -> None:
    key, found = parse_override(f"a.0.b={text}")
    assert key == "a.0.b"
    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize("value", ["!!python/name:os.system x", "!!int x", "0x_", "a: b: c", "9" * 5000])
def test_a_value_that_cannot_be_read_is_a_message(value: str) -> None:
    with pytest.raises(UserError, match=r"^key: .* is not a YAML value: "):
        parse_override(f"key={value}")


def test_nested_keys() -> None:
    config: dict[str, Any] = {"datasets": [{"split": "train"}], "seed": 1}
    set_key(config, "datasets.0.split", "test")
    set_key(config, "deepspeed.zero_optimization.stage", 2)
    set_key(config, "seed", 2)
    assert config == {
        "datasets": [{"split": "test"}],
        "deepspeed": {"zero_optimization": {"stage": 2}},
        "seed": 2,
    }
