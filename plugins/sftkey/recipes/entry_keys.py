"""The keys of an entry of ``datasets:``: which are read, for which type, and why the others are refused."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from sftkey.datasets.columns import COLUMNS
from sftkey.datasets.messages import reader_of
from sftkey.datasets.registry import TYPES
from sftkey.recipes.keys import ColumnNames
from sftkey.util.errors import UserError

_COLUMNS, _MESSAGES = f"{TYPES}columns", f"{TYPES}messages"

LOADING = (
    "path name split revision data_files ds_type shards shards_idx preprocess_shards trust_remote_code type".split()
)
"""Read by Axolotl when it loads the rows, before any of this plugin's code."""

_READ_BY: Mapping[str, str] = {
    "sftkey_columns": _COLUMNS,
    **dict.fromkeys(
        "field_messages field_thinking message_property_mappings message_field_role message_field_content "
        "message_field_training roles sftkey_turns field_tools drop_system_message".split(),
        _MESSAGES,
    ),
}

_SAME: Mapping[str, tuple[tuple[Any, ...], str]] = {
    "roles_to_train": ((["assistant"],), "the loss is on the response; what of it is sftkey_method's"),
    "train_on_eos": (("turn", "last"), "the end of the response's turn is always trained, no other is"),
    "train_on_eot": (("turn", "last"), "the end of the response's turn is always trained, no other is"),
    "split_thinking": ((True,), "a think block is always split off"),
}
"""What is done anyway: the values that say so, and the reason why another one is refused."""

_TEMPLATE = "the template follows from sftkey_method"
_OTHER_FORM = f"it belongs to other forms of data; your own have the type {_COLUMNS} or {_MESSAGES}"
_REFUSED: Mapping[str, str] = {
    "chat_template": _TEMPLATE,
    "chat_template_jinja": _TEMPLATE,
    "template_thinking_key": _TEMPLATE,
    "message_field_training_detail": "parts of a response are sftkey_method's and sftkey_segment_weights'",
    "logprobs_field": "there is no distillation here",
    "temperature": "there is no distillation here",
    **dict.fromkeys(
        "input_transform input_format conversation field field_human field_model".split(),
        _OTHER_FORM,
    ),
}

ENTRY_KEYS = frozenset({*LOADING, *_READ_BY, *_SAME, *_REFUSED})
"""Every key that an entry can have; another one is unknown."""


def check_entry(place: str, entry: Mapping[str, Any]) -> None:
    """Check that every key of an entry is read by its type, or says what is done anyway.

    Args:
        place: Where the entry is, such as ``datasets[0]``.
        entry: The entry.

    Raises:
        UserError: A key would be ignored.
    """
    kind = str(entry.get("type"))
    for key, value in entry.items():
        # False and empty values say nothing: Axolotl's own defaults.
        if not value and key not in _SAME:
            continue
        if key in _SAME and value is not None and value not in _SAME[key][0]:
            raise UserError(f"{place}: {key}: {value!r} can't be done here ({_SAME[key][1]}); remove it")
        if key in _REFUSED:
            raise UserError(f"{place}: {key}: does not go with this plugin ({_REFUSED[key]}); remove it")
        reader = _READ_BY.get(str(key))
        if reader and kind.startswith(TYPES) and kind != reader:
            raise UserError(f"{place}: {key}: only type {reader} reads it, and this is {kind}; remove it")
    names = entry.get("sftkey_columns")
    try:
        if names is not None:
            ColumnNames.model_validate(names)
        if kind == _MESSAGES:
            reader_of(entry)
    except ValidationError:
        raise UserError(
            f"{place}: sftkey_columns: {names!r}; it maps {', '.join(COLUMNS)} to columns of the data"
        ) from None
    except UserError as error:
        raise UserError(f"{place}: {error}") from error
    if entry.get("shards_idx") and not entry.get("shards"):
        raise UserError(
            f"{place}: shards_idx: {entry['shards_idx']} does nothing without shards; add shards or remove it"
        )
    if entry.get("shards") and entry.get("preprocess_shards"):
        raise UserError(f"{place}: shards and preprocess_shards are both set, and the second is ignored; keep one")
