"""A recipe as YAML text: one layout for shipped, written and shared recipes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from decimal import Decimal
from types import MappingProxyType
from typing import Any

import yaml

from sftkey.recipes.settings import matches

LAYOUT = tuple(
    group.split()
    for group in (
        "base_model revision_of_model output_dir",
        "plugins sftkey_requires sftkey_method sftkey_after sftkey_warmup_epochs chat_template "
        "default_system_message sftkey_*",
        "datasets test_datasets dataset_prepared_path",
        "adapter lora_* load_in_*",
        "sequence_len micro_batch_size gradient_accumulation_steps num_epochs max_steps learning_rate lr_scheduler optimizer "
        "weight_decay",
        "bf16 tf32 gradient_checkpointing attn_implementation deepspeed fsdp_*",
        "logging_steps eval* save* seed",
    )
)
"""One group of keys after the other; what is not listed comes last."""


def recipe_text(
    config: Mapping[str, Any], header: Iterable[str], comments: Mapping[str, str] = MappingProxyType({})
) -> str:
    """Write a recipe as YAML, in groups of keys.

    Args:
        config: The recipe.
        header: The lines at the top, without ``#``.
        comments: Key -> the comment lines above it, with ``#``.
    """
    # A line break in a header, of a name or a date that somebody else wrote, must not end the comment.
    head = "".join(f"# {line}\n" for text in header for line in text.splitlines())
    left = dict(config)
    groups = [
        {key: left.pop(key) for pattern in group for key in [key for key in left if matches(key, pattern)]}
        for group in LAYOUT
    ]
    groups.append(dict(sorted(left.items())))
    return head + "\n".join(
        "".join(comments.get(key, "") + yaml.dump({key: value}, **_STYLE) for key, value in group.items())
        for group in groups
        if group
    )


class _Dumper(yaml.SafeDumper):
    """Lists indented below their key, lists of plain values on one line, small numbers as ``5.0e-6``."""

    def increase_indent(self, flow: bool = False, indentless: bool = False) -> None:
        super().increase_indent(flow, False)


def _list(dumper: yaml.SafeDumper, value: list[Any]) -> yaml.Node:
    flow = not any(isinstance(item, (dict, list)) for item in value)
    return dumper.represent_sequence("tag:yaml.org,2002:seq", value, flow_style=flow)


def _float(dumper: yaml.SafeDumper, value: float) -> yaml.Node:
    if not 0 < abs(value) < 1e-2:
        return dumper.represent_float(value)
    mantissa, exponent = f"{Decimal(repr(value)):e}".split("e")
    # Without a point YAML 1.1, which Axolotl reads, takes it for text.
    mantissa += "" if "." in mantissa else ".0"
    return dumper.represent_scalar("tag:yaml.org,2002:float", f"{mantissa}e{exponent}")


def _str(dumper: yaml.SafeDumper, value: str) -> yaml.Node:
    # These line breaks are folded in any other style.
    style = '"' if any(character in value for character in "\x85\u2028\u2029") else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", value, style=style)


_Dumper.add_representer(str, _str)
_Dumper.add_representer(list, _list)
_Dumper.add_representer(float, _float)

_STYLE: dict[str, Any] = {"Dumper": _Dumper, "sort_keys": False, "allow_unicode": True, "width": 4096}
