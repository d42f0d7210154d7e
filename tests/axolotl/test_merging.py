"""``axolotl merge-lora``: the stage's own adapter is merged, and the merged checkpoint stops and prompts like it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from sftkey.axolotl.merging import complete_merged, merge_own_adapter, stop_tokens
from sftkey.format import templates
from sftkey.stages.marker import MARKER_FILE, SCHEMA
from sftkey.util.errors import UserError
from sftkey.util.files import write_atomically


def test_the_stage_before_is_not_what_is_merged(tmp_path: Path) -> None:
    recipe = {"output_dir": str(tmp_path / "stage2"), "lora_model_dir": str(tmp_path / "stage1")}
    own = {**recipe, "axolotl_config_path": "my recipes/stage2.yml"}
    with pytest.raises(UserError, match=r"stage2 holds no finished stage .*\n  axolotl train 'my recipes/stage2\.yml'"):
        merge_own_adapter(own, None)
    marker = {"schema": SCHEMA, "finished_at": "2026", "method": "key-tag", "base_model": recipe["lora_model_dir"]}
    write_atomically(tmp_path / "stage2" / MARKER_FILE, marker)
    merge_own_adapter(own, None)
    assert own["lora_model_dir"] == recipe["output_dir"]
    # A checkpoint, or any adapter, that the user names is the user's choice.
    named = dict(recipe)
    merge_own_adapter(named, "elsewhere/checkpoint-8")
    assert named["lora_model_dir"] == "elsewhere/checkpoint-8"


def test_a_merged_checkpoint_has_the_adapters_tokenizer_and_end(tiny_root: Path, tmp_path: Path) -> None:
    from sftkey.format import tags
    from transformers import AutoTokenizer, GenerationConfig

    tokenizer = AutoTokenizer.from_pretrained(tiny_root / "model")
    end_of_text = tokenizer.eos_token_id
    tokenizer.add_tokens(list(tags.TAGS))
    tokenizer.eos_token = "<|im_end|>"
    tokenizer.chat_template = templates.chat_template(templates.TAGGED)
    tokenizer.save_pretrained(tmp_path / "adapter")
    merged = tmp_path / "merged"
    complete_merged(tmp_path / "adapter", merged)
    assert not merged.exists()
    # As Axolotl leaves it: merged weights between the base model's own files.
    shutil.copytree(tiny_root / "model", merged)
    (merged / "special_tokens_map.json").write_text(json.dumps({"eos_token": "<|endoftext|>"}))
    complete_merged(tmp_path / "adapter", merged)
    found = AutoTokenizer.from_pretrained(merged)
    end_of_turn = tokenizer.convert_tokens_to_ids("<|im_end|>")
    assert found.eos_token_id == end_of_turn != end_of_text
    assert found.chat_template == tokenizer.chat_template
    assert found.encode("<Thinking>") == tokenizer.encode("<Thinking>")
    assert len(found.encode("<Thinking>")) == 1
    assert GenerationConfig.from_pretrained(merged).eos_token_id == [end_of_turn, end_of_text]
    assert json.loads((merged / "config.json").read_text())["eos_token_id"] == end_of_turn


@pytest.mark.parametrize(("previous", "expected"), [(None, [9]), (9, [9]), (1, [9, 1]), ([1, 9, 2], [9, 1, 2])])
def test_stop_tokens(previous: Any, expected: list[int]) -> None:
    assert stop_tokens(9, previous) == expected
