"""`sftkey.trl`: the README's two stages on real GSM8K rows, what they leave, what is refused, and an interruption."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import Any

import pytest
import torch
from demo.tiny_model import make_model
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file
from sftkey.format.templates import TAGGED
from sftkey.stages.marker import MARKER_FILE, Marker
from sftkey.stages.stage import Stage
from sftkey.training.recipe_rows import set_up_tokenizer
from sftkey.trl import SFTKeyTrainer
from sftkey.trl.data import prepare_rows
from sftkey.util.errors import UserError
from support.availability import SHARED, skip_or_fail
from support.axolotl_recipes import write_recipe
from support.brute_force_mask import brute_force
from support.chats import chats, trained_turns
from support.commands import succeeded, train
from test_how_to import blocks
from transformers import AutoTokenizer, TrainerCallback
from trl import SFTConfig

ENTRY = {"path": "openai/gsm8k", "name": "main", "split": "train", "type": "sftkey.datasets.gsm8k"}
OWN = {"thinking_open": "<t>", "thinking_close": "</t>", "answer_open": "<a>", "answer_close": "</a>"}
ROWS = 12


def real_rows() -> list[dict[str, str]]:
    path = SHARED / "data" / "gsm8k" / "train.jsonl"
    if not path.is_file():
        skip_or_fail(f"no {path}")
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()[:ROWS]]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A working directory where the README's names are local folders, and the README's code has been run."""
    root = tmp_path_factory.mktemp("trl")
    rows = real_rows()
    data = root / "openai" / "gsm8k" / "main"
    data.mkdir(parents=True)
    (data / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    card = "---\nconfigs:\n- config_name: main\n  data_files:\n  - {split: train, path: main/train.jsonl}\n---\n"
    (root / "openai" / "gsm8k" / "README.md").write_text(card)
    make_model(root / "HuggingFaceTB" / "SmolLM2-135M", [row["question"] + row["answer"] for row in rows], 0, 1, 32)
    code = next(block for block in blocks("Train with TRL, LLaMA-Factory or ms-swift") if "sftkey.trl" in block)
    assert len(code.splitlines()) < 25
    before, threads = Path.cwd(), torch.get_num_threads()
    os.chdir(root)
    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HF_DATASETS_CACHE", str(root / "cache"))
        patch.setattr("datasets.config.HF_DATASETS_CACHE", str(root / "cache"))
        exec(code, {})
        yield root
    os.chdir(before)
    torch.set_num_threads(threads)


def config(output_dir: str, **more: Any) -> SFTConfig:
    options = {
        "num_train_epochs": 2,
        "learning_rate": 1e-3,
        "per_device_train_batch_size": 2,
        "gradient_accumulation_steps": 2,
        "bf16": False,
        "gradient_checkpointing": False,
        "logging_steps": 1,
        "save_steps": 2,
        "report_to": "none",
        "use_cpu": True,
    }
    return SFTConfig(output_dir, **(options | more))


def recipe(method: str = "key-tag", **more: Any) -> dict[str, Any]:
    return {"sftkey_method": method, "datasets": [ENTRY], **more}


def test_the_readme_trains_both_stages(place: Path) -> None:
    stages = Stage.read(place / "outputs" / "stage2").chain
    assert [(stage.method, stage.finished) for stage in stages] == [("sft-tag", True), ("key-tag", True)]
    marker = Marker.read(place / "outputs" / "stage2")
    assert marker is not None
    assert marker.after is not None
    assert marker.after.id == Marker.read(place / "outputs" / "stage1").id  # type: ignore[union-attr]
    assert marker.data[0].rows_used == ROWS
    assert {"trl", "sftkey", "torch"} <= marker.versions.keys()
    assert "axolotl" not in marker.versions
    assert marker.training.steps == 3
    generation = json.loads((place / "outputs" / "stage2" / "generation_config.json").read_text())
    assert generation["eos_token_id"][0] == 2  # <|im_end|>: generation ends with the turn


@pytest.mark.parametrize("method", ["sft-tag", "key-tag"])
def test_the_trained_tokens_are_those_of_the_paper(place: Path, method: str) -> None:
    trainer = SFTKeyTrainer("HuggingFaceTB/SmolLM2-135M", config(f"outputs/{method}"), recipe(method))
    assert len(trainer.train_dataset) == ROWS
    for row, source in zip(trainer.train_dataset, real_rows(), strict=True):
        thinking, _, answer = source["answer"].rpartition("\n#### ")
        prompt = trainer.processing_class.apply_chat_template(
            [{"role": "user", "content": source["question"]}], tokenize=False, add_generation_prompt=True
        )
        ids, labels = brute_force(trainer.processing_class, prompt, _cleaned(thinking), answer, method)
        assert (row["input_ids"], row["labels"]) == (ids, labels)
    trainer._run.end()


def _cleaned(thinking: str) -> str:
    from sftkey.datasets.gsm8k import GSM8K

    return GSM8K.to_example({"question": "q", "answer": f"{thinking}\n#### 1"}).thinking


@pytest.mark.parametrize("turns", ["last", "all"])
@pytest.mark.parametrize("method", ["sft-tag", "key-tag"])
def test_conversations_are_trained_with_their_history(place: Path, tmp_path: Path, method: str, turns: str) -> None:
    tokenizer = AutoTokenizer.from_pretrained(place / "HuggingFaceTB" / "SmolLM2-135M")
    set_up_tokenizer(tokenizer, TAGGED, None, tags_as_tokens=False)
    files = count()

    @settings(max_examples=5, deadline=None, database=None)
    @given(st.lists(chats(), min_size=2, max_size=4))
    def check(rows: list[dict[str, Any]]) -> None:
        expected = [one for row in rows for one in trained_turns(tokenizer, row, turns, method)]
        assume(expected)
        file = tmp_path / f"{next(files)}.jsonl"
        file.write_text("".join(json.dumps(row) + "\n" for row in rows))
        entry = {"path": str(file), "type": "sftkey.datasets.messages"}
        cfg = recipe(method, datasets=[entry], sftkey_turns=turns, sequence_len=2000, base_model="x", output_dir="y")
        prepared = prepare_rows(cfg, tokenizer)
        assert prepared is not None
        assert [(row["input_ids"], row["labels"]) for row in prepared.rows] == expected
        (counts,) = prepared.counts
        assert counts["rows_used"] == len(expected)

    check()


def test_running_again_trains_nothing(place: Path) -> None:
    before = (place / "outputs" / "stage2" / MARKER_FILE).read_bytes()
    marker = Marker.read(place / "outputs" / "stage2")
    assert marker is not None
    code = next(block for block in blocks("Train with TRL, LLaMA-Factory or ms-swift") if "sftkey.trl" in block)
    exec(code, {})
    assert (place / "outputs" / "stage2" / MARKER_FILE).read_bytes() == before


def test_report_and_share_read_it(place: Path) -> None:
    from sftkey.report.collect import collect
    from sftkey.stages.share import make_bundle

    bundle = make_bundle(place / "outputs" / "stage2")
    assert list(bundle.recipes) == ["stage1.yml", "stage2.yml"]
    assert any("trained with TRL" in note for note in bundle.notes)
    assert "trl==" in bundle.texts["requirements.txt"]
    found = collect([place / "outputs"])
    assert {Path(stage).name for stage in found.stages} >= {"stage1", "stage2"}


@pytest.mark.parametrize(
    ("own", "message"),
    [
        ({"sftkey_method": "key"}, "builds on untagged data: start it from an sft stage"),
        ({"default_system_message": "Be brief."}, "another chat template or system message"),
        ({"sftkey_tags": "tokens"}, "made with the tags as plain text"),
        ({"datasets": [{**ENTRY, "split": "train[:4]"}]}, "if that is meant, set sftkey_other_data: true"),
        ({"sftkey_methd": "key"}, "did you mean 'sftkey_method'"),
        ({"sftkey_format": "think"}, "only Axolotl reads the model's own chat template; remove it"),
        ({"sftkey_format": OWN}, "only Axolotl reads the model's own chat template; remove it"),
        ({"chat_template": "tokenizer_default"}, "only Axolotl reads the model's own chat template; remove it"),
        (
            {"chat_template": "jinja", "chat_template_jinja": "{{ messages[0].content }}"},
            "only Axolotl reads the model's own chat template; remove it",
        ),
    ],
)
def test_a_wrong_hand_over_is_refused(place: Path, own: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message) as found:
        SFTKeyTrainer("outputs/stage1", config("outputs/wrong"), recipe() | own)
    assert "\n" not in str(found.value)


def test_an_unfinished_or_changed_stage_is_refused(place: Path) -> None:
    copy = place / "outputs" / "copy"
    shutil.copytree(place / "outputs" / "stage1", copy)
    weights = bytearray((copy / "model.safetensors").read_bytes())
    weights[-1] ^= 1
    (copy / "model.safetensors").write_bytes(weights)
    with pytest.raises(UserError, match=r"model\.safetensors isn't what that stage finished with"):
        SFTKeyTrainer("outputs/copy", config("outputs/wrong"), recipe())
    (copy / MARKER_FILE).unlink()
    with pytest.raises(UserError, match="outputs/copy has not finished"):
        SFTKeyTrainer("outputs/copy", config("outputs/wrong"), recipe())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"packing": True}, "packing=True: rows are padded here"),
        ({"loss_type": "dft"}, "loss_type='dft': it is another loss"),
        ({"completion_only_loss": True}, "sftkey_method says what is trained"),
        ({"max_length": None}, "never cut, which needs a length"),
        ({"label_smoothing_factor": 0.1}, "label_smoothing_factor: does not go with sftkey_method"),
    ],
)
def test_arguments_that_would_be_ignored_are_refused(place: Path, options: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        SFTKeyTrainer("HuggingFaceTB/SmolLM2-135M", config("outputs/wrong", **options), recipe())


class Interruption(TrainerCallback):
    """Ends training as Ctrl-C does, after a step that was saved and one that wasn't."""

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.global_step == 3:
            raise KeyboardInterrupt


def test_interrupted_and_resumed_it_ends_with_the_same_weights(place: Path) -> None:
    SFTKeyTrainer("outputs/stage1", config("outputs/whole"), recipe()).train()
    interrupted = SFTKeyTrainer("outputs/stage1", config("outputs/cut"), recipe(), callbacks=[Interruption()])
    with pytest.raises(KeyboardInterrupt):
        interrupted.train()
    assert not (place / "outputs" / "cut" / MARKER_FILE).exists()
    with pytest.raises(UserError, match=r"other settings \(learning_rate: 0.001 -> 0.1\)"):
        SFTKeyTrainer("outputs/stage1", config("outputs/cut", learning_rate=0.1), recipe())
    resumed = SFTKeyTrainer("outputs/stage1", config("outputs/cut"), recipe())
    resumed.train()
    marker = Marker.read(place / "outputs" / "cut")
    assert marker is not None
    assert marker.lineage is not None
    assert [Path(one).name for one in marker.lineage.resumed_from] == ["checkpoint-2"]
    assert {"loss_answer", "loss_format", "acc_answer"} <= marker.training.losses.keys()
    assert "loss_thinking" not in marker.training.losses  # Stage 2 trains no token of it
    whole, cut = (load_file(place / "outputs" / name / "model.safetensors") for name in ("whole", "cut"))
    assert whole.keys() == cut.keys()
    assert all(torch.equal(whole[name], cut[name]) for name in whole)


def test_an_adapter_is_trained_in_both_stages(place: Path) -> None:
    from peft import LoraConfig

    lora = LoraConfig(r=2, target_modules=["q_proj"], task_type="CAUSAL_LM")
    short = {"max_steps": 1}
    model = "HuggingFaceTB/SmolLM2-135M"
    SFTKeyTrainer(model, config("outputs/lora1", **short), recipe("sft-tag"), peft_config=lora).train()
    SFTKeyTrainer("outputs/lora1", config("outputs/lora2", **short), recipe()).train()
    stages = Stage.read(place / "outputs" / "lora2").chain
    assert [stage.is_adapter for stage in stages] == [True, True]
    first, second = (load_file(stage.output_dir / "adapter_model.safetensors") for stage in stages)
    assert first.keys() == second.keys()
    assert any(not torch.equal(first[name], second[name]) for name in first)
    assert stages[1].base_model == model


@pytest.mark.slow
def test_axolotl_trains_the_shared_recipe_with_the_same_losses(place: Path) -> None:
    """Axolotl's Stage 2 from TRL's Stage 1, in the same order of rows: token for token the same losses and weights."""
    stage1, trl = Marker.read(place / "outputs" / "stage1"), place / "outputs" / "whole"
    if Marker.read(trl) is None:
        SFTKeyTrainer("outputs/stage1", config("outputs/whole"), recipe()).train()
    marker = Marker.read(trl)
    assert stage1 is not None
    assert marker is not None
    write_recipe(place / "stage1.yml", stage1.recipe.config)
    again = marker.recipe.config | {
        "output_dir": "outputs/axolotl",
        "sftkey_after": "stage1.yml",
        "shuffle_merged_datasets": False,
        "dataset_prepared_path": "prepared",
        "attn_implementation": "sdpa",
    }
    again.pop("use_cpu", None)
    succeeded(train(write_recipe(place / "again.yml", again), cwd=place))
    theirs, ours = (
        [entry for entry in json.loads((folder / "trainer_state.json").read_text())["log_history"] if "loss" in entry]
        for folder in (place / "outputs" / "axolotl", trl)
    )
    for key in ("loss", "loss_answer", "loss_format", "tokens_answer", "tokens_format", "grad_norm"):
        assert [entry[key] for entry in theirs] == pytest.approx([entry[key] for entry in ours], rel=1e-5), key
    weights, others = (load_file(folder / "model.safetensors") for folder in (place / "outputs" / "axolotl", trl))
    assert all(torch.allclose(weights[name], others[name], atol=1e-5) for name in others)
