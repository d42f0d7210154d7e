"""Every key of an entry is read, says what is done anyway, or is refused with the reason."""

from __future__ import annotations

from typing import Any

import pytest
from sftkey.recipes.entry_keys import ENTRY_KEYS, check_entry
from sftkey.util.errors import UserError

COLUMNS = {"path": "x.jsonl", "type": "sftkey.datasets.columns"}
MESSAGES = {"path": "x.jsonl", "type": "sftkey.datasets.messages"}


def test_every_field_of_axolotls_schema_is_decided() -> None:
    datasets = pytest.importorskip("axolotl.utils.schemas.datasets")
    assert set(datasets.SFTDataset.model_fields) - ENTRY_KEYS == set()


@pytest.mark.parametrize(
    "entry",
    [
        {**COLUMNS, "sftkey_columns": {"thinking": "cot"}},
        {**COLUMNS, "split": "train[:10]", "shards": 2, "shards_idx": 1, "trust_remote_code": False},
        {
            **COLUMNS,
            "preprocess_shards": 2,
            "roles_to_train": ["assistant"],
            "train_on_eos": "turn",
            "chat_template": None,
        },
        {**MESSAGES, "field_messages": "chat", "roles": {"user": ["q"]}, "message_field_training": "train"},
        {**MESSAGES, "sftkey_turns": "all", "field_tools": "functions", "drop_system_message": False},
        {**MESSAGES, "message_field_role": "from", "drop_system_message": True, "split_thinking": True},
        {"path": "x", "type": "my_lab.svamp", "field_messages": "chat"},
    ],
)
def test_what_is_read_or_done_anyway_passes(entry: dict[str, Any]) -> None:
    check_entry("datasets[0]", entry)


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({**MESSAGES, "roles_to_train": ["user"]}, "roles_to_train: .*sftkey_method"),
        ({**MESSAGES, "train_on_eos": "none"}, "train_on_eos: 'none' can't be done here"),
        ({**MESSAGES, "train_on_eot": "all"}, "train_on_eot"),
        ({**MESSAGES, "chat_template": "chatml"}, "chat_template: does not go with this plugin"),
        ({**COLUMNS, "drop_system_message": True}, "only type sftkey.datasets.messages reads it"),
        ({**COLUMNS, "sftkey_turns": "all"}, "only type sftkey.datasets.messages reads it"),
        ({**MESSAGES, "sftkey_turns": "first"}, "'first' is not one of last, all"),
        ({**MESSAGES, "message_field_training_detail": "parts"}, "sftkey_segment_weights"),
        ({**COLUMNS, "field_messages": "chat"}, "only type sftkey.datasets.messages reads it"),
        ({**COLUMNS, "roles": {"user": ["q"]}}, "roles: only type"),
        ({**MESSAGES, "sftkey_columns": {"thinking": "cot"}}, "only type sftkey.datasets.columns reads it"),
        ({**COLUMNS, "sftkey_columns": {"reasoning": "cot"}}, "it maps question, thinking, answer"),
        ({**COLUMNS, "sftkey_columns": "cot"}, "it maps question, thinking, answer"),
        ({**COLUMNS, "sftkey_columns": {"options": ["A"]}}, "it maps question, thinking, answer"),
        ({**COLUMNS, "sftkey_columns": {"options": ["A", 1]}}, "it maps question, thinking, answer"),
        ({**COLUMNS, "sftkey_columns": {1: "cot"}}, "it maps question, thinking, answer"),
        ({**MESSAGES, "message_property_mappings": 3}, "message_property_mappings: 3 is not a mapping such as"),
        ({**MESSAGES, "message_property_mappings": {"role": 3}}, "message_property_mappings: role: 3 is not a text"),
        ({**MESSAGES, "message_property_mappings": {1: "x"}}, "message_property_mappings: 1 unknown"),
        ({**MESSAGES, "field_messages": ["chat"]}, r"field_messages: \['chat'\] is not a text"),
        ({**MESSAGES, "message_field_role": True}, "message_field_role: True is not a text"),
        ({**MESSAGES, "drop_system_message": "never"}, "drop_system_message: 'never' is not true or false"),
        ({**MESSAGES, "roles": {"user": "human"}}, "roles: user: 'human'; it maps"),
        ({**COLUMNS, "field": "text"}, "other forms of data"),
        ({**COLUMNS, "shards_idx": 1}, "without shards"),
        ({**COLUMNS, "shards": 2, "preprocess_shards": 2}, "keep one"),
    ],
)
def test_what_would_be_ignored_is_refused(entry: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message) as refused:
        check_entry("datasets[0]", entry)
    assert str(refused.value).startswith("datasets[0]: ")
    assert "\n" not in str(refused.value)
