"""``sftkey inspect``: the counts are those of training, and a recipe for GPUs is inspected without one."""

from __future__ import annotations

import json
import re
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from click.testing import CliRunner, Result
from sftkey.format.templates import system_prompt
from support.commands import SFTKEY, run, succeeded
from support.documented_json import follows_the_documentation

CONFIG = {
    "architectures": ["Qwen3ForCausalLM"],
    "model_type": "qwen3",
    "hidden_size": 64,
    "intermediate_size": 64,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 32,
    "vocab_size": 151936,
    "transformers_version": "4.51.0",
}

HUB_CARD = """---
configs:
- config_name: main
  data_files:
  - {split: train, path: train.jsonl}
  - {split: test, path: test.jsonl}
---
"""


@pytest.fixture
def workplace(tmp_path: Path, shared_dir: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with the real GSM8K and the real Qwen3 tokenizer under their names on the Hub."""
    model, data = tmp_path / "Qwen/Qwen3-8B-Base", tmp_path / "openai/gsm8k"
    for folder, files in ((model, shared_dir / "tokenizers/qwen3"), (data, shared_dir / "data/gsm8k")):
        folder.mkdir(parents=True)
        for file in files.iterdir():
            (folder / file.name).symlink_to(file)
    (model / "config.json").write_text(json.dumps(CONFIG))
    (data / "README.md").write_text(HUB_CARD)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write_recipe(folder: Path, name: str = "recipe.yml", **changes: Any) -> Path:
    recipe = {
        "base_model": "Qwen/Qwen3-8B-Base",
        "output_dir": "outputs/stage1",
        "plugins": ["sftkey.SFTKeyPlugin"],
        "sftkey_method": "sft-tag",
        "chat_template": "thinking_answer",
        "sequence_len": 2048,
        "micro_batch_size": 32,
        "bf16": True,
        "attn_implementation": "flash_attention_2",
        "deepspeed": "deepspeed/zero3.json",
        "datasets": [{"path": "openai/gsm8k", "name": "main", "split": "train", "type": "sftkey.datasets.gsm8k"}],
        **changes,
    }
    path = folder / name
    path.write_text(yaml.safe_dump({key: value for key, value in recipe.items() if value is not None}))
    return path


def write_rows(path: Path, rows: list[dict[str, Any]]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def inspect(recipe: Path, *options: str) -> Result:
    from sftkey.cli.main import sftkey

    return CliRunner().invoke(sftkey, ["inspect", str(recipe), *options])


def numbers(output: str, line: str) -> list[int]:
    """The whole numbers in the line that starts with `line`."""
    found = re.search(rf"^{re.escape(line)} +(.*)$", output, flags=re.MULTILINE)
    assert found, output
    return [int(number.replace(",", "")) for number in re.findall(r"(?<![\d.])[\d,]+(?![\d.,]*%)", found[1])]


def test_real_gsm8k_against_an_independent_count(workplace: Path, shared_dir: Path) -> None:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(shared_dir / "tokenizers/qwen3")

    def count(texts: list[str]) -> np.ndarray:
        return np.array([len(ids) for ids in tokenizer(texts)["input_ids"]])

    rows = [json.loads(line) for line in (shared_dir / "data/gsm8k/train.jsonl").read_text("utf-8").splitlines()]
    system = f"<|im_start|>system\n{system_prompt()}<|im_end|>\n<|im_start|>user\n"
    prompt = count([f"{system}{row['question'].strip()}<|im_end|>\n<|im_start|>assistant\n" for row in rows])
    solutions = [re.sub(r"<<[^<>]*>>", "", row["answer"]).rsplit("####", 1) for row in rows]
    thinking, answer = (count([solution[part].strip() for solution in solutions]) for part in (0, 1))
    tags = count(["<Thinking>", "</Thinking>", "<Answer>", "</Answer>"])
    key = answer + tags[2:].sum() + 1
    whole = prompt + thinking + tags[:2].sum() + key

    for method, trained in (("key-tag", key), ("sft-tag", whole - prompt)):
        output = inspect(write_recipe(workplace, sftkey_method=method, sequence_len=300), "--rows", "0").stdout
        for name, lengths in (("prompt", prompt), ("thinking", thinking), ("answer", answer), ("whole row", whole)):
            expected = [np.quantile(lengths, share, method="inverted_cdf") for share in (0.5, 0.95, 1)]
            assert numbers(output, name) == expected
        kept = whole <= 300
        assert numbers(output, "rows") == [7473]
        assert numbers(output, "used") == [kept.sum()]
        assert numbers(output, "skipped: longer than sequence_len 300")[0] == (~kept).sum()
        assert numbers(output, "tokens per epoch") == [whole[kept].sum()]
        assert numbers(output, "trained tokens") == [trained[kept].sum()]
        assert f"{whole.max()} would drop none" in output


AWKWARD_ROWS = [
    {"question": "2+3?", "thinking": "2 and 3.", "answer": "5"},
    {"question": "", "thinking": "2 and 3.", "answer": "5"},
    {"question": "2+3?", "thinking": " ", "answer": "5"},
    {"question": "2+3?", "thinking": "2 and 3.", "answer": ""},
    {"question": "2+3?", "thinking": "a </Thinking> tag", "answer": "5"},
    {"question": "2+3?", "thinking": "2 and 3.", "answer": "5<|im_end|>"},
    {"question": "2+3?", "thinking": "long " * 400, "answer": "5"},
    {"question": "What is <Answer>?", "thinking": "A \x1b[31mtag\x1b[0m.", "answer": "a tag"},
    {"question": "3+3?", "thinking": "3 and 3.", "answer": "6"},
]


@pytest.mark.parametrize("method", ["sft", "sft-tag", "key-tag", "key"])
def test_counts_are_those_of_training(workplace: Path, method: str) -> None:
    from axolotl.loaders import load_tokenizer
    from datasets import Dataset
    from sftkey.axolotl.strategy import entry_rows
    from sftkey.cli.inspect import recipe_to_inspect
    from sftkey.datasets import columns

    data = write_rows(workplace / "rows.jsonl", AWKWARD_ROWS)
    entry = {"path": data, "ds_type": "json", "split": "train", "type": "sftkey.datasets.columns"}
    template = None if method in ("sft", "key") else "thinking_answer"
    recipe = write_recipe(workplace, sftkey_method=method, sequence_len=300, chat_template=template, datasets=[entry])
    output = inspect(recipe, "--rows", "0").stdout

    cfg, _ = recipe_to_inspect(recipe)
    strategy = columns.load(load_tokenizer(cfg), cfg, cfg.datasets[0])
    trained = strategy.wrap_dataset(Dataset.from_list(AWKWARD_ROWS))
    counts = entry_rows(cfg, cfg.datasets[0])

    assert numbers(output, "used") == [counts["rows_used"]] == [len(trained)]
    shown = dict(re.findall(r"^skipped: (.+?)  +(\d+)  ", output, flags=re.MULTILINE))
    shown = {re.sub(r" 300$", "", reason): int(count) for reason, count in shown.items()}
    assert shown == counts["rows_skipped"]
    labels = Counter(label != -100 for row in trained["labels"] for label in row)
    assert numbers(output, "tokens per epoch") == [labels.total()]
    assert numbers(output, "trained tokens") == [labels[True]]


def test_rows_are_shown_with_trained_tokens_marked(workplace: Path) -> None:
    data = write_rows(workplace / "rows.jsonl", AWKWARD_ROWS)
    entry = {"path": data, "ds_type": "json", "split": "train", "type": "sftkey.datasets.columns"}
    recipe = write_recipe(workplace, sftkey_method="key-tag", sequence_len=300, datasets=[entry])

    plain = inspect(recipe, "--rows", "2").stdout
    assert "\x1b" not in plain
    assert re.findall(r"^row (\d+),", plain, flags=re.MULTILINE) == ["0", "7"]
    assert re.findall(r"^T \| (.*)$", plain, flags=re.MULTILINE) == [
        *("<Answer>", "5", "</Answer>", "<|im_end|>"),
        *("<Answer>", "a tag", "</Answer>", "<|im_end|>"),
    ]
    assert "  | A \\x1b[31mtag\\x1b[0m." in plain

    coloured = inspect(recipe, "--rows", "2", "--color").stdout
    green = re.findall(r"\x1b\[1;32m([^\x1b]*)\x1b\[0m", coloured)
    assert "".join(green) == "<Answer>5</Answer><|im_end|><Answer>a tag</Answer><|im_end|>"


@pytest.mark.parametrize(("options", "coloured"), [(["--color"], True), ([], False)])
@pytest.mark.parametrize("command", [SFTKEY, ("axolotl", "sftkey")], ids=["sftkey", "alias"])
def test_colours_reach_a_pager_when_asked_for(
    workplace: Path, command: tuple[str, ...], options: list[str], coloured: bool
) -> None:
    """Through the real command: Axolotl has colorama take the colours out of what isn't a terminal."""
    data = write_rows(workplace / "rows.jsonl", AWKWARD_ROWS[:1])
    entry = {"path": data, "ds_type": "json", "split": "train", "type": "sftkey.datasets.columns"}
    recipe = write_recipe(workplace, sftkey_method="key-tag", datasets=[entry])
    output = succeeded(run(*command, "inspect", recipe, *options, cwd=workplace)).stdout
    assert ("\x1b[1;32m<Answer>\x1b[0m\x1b[1;32m5\x1b[0m" in output) == coloured
    assert ("T | <Answer>" in output) != coloured
    # In the order in which it was written, whichever way it went.
    assert output.index("== datasets") < output.index("row 0,") < output.index("<Answer>") < output.index("\nused ")


def test_json_is_all_of_stdout(workplace: Path) -> None:
    data = write_rows(workplace / "rows.jsonl", AWKWARD_ROWS)
    entry = {"path": data, "ds_type": "json", "split": "train", "type": "sftkey.datasets.columns"}
    recipe = write_recipe(workplace, sequence_len=300, datasets=[entry])
    found = json.loads(succeeded(run(*SFTKEY, "inspect", recipe, "--json", cwd=workplace)).stdout)
    follows_the_documentation("inspect", found)
    text = succeeded(run(*SFTKEY, "inspect", recipe, "--rows", "0", cwd=workplace)).stdout
    assert text.startswith(f"{recipe}: sft-tag, ")
    assert (found["recipe"], found["method"], found["notes"]) == (str(recipe), "sft-tag", [])
    (counts,) = found["data"]
    assert counts["data"] == f"datasets: {data} train"
    assert [counts["rows"]] == numbers(text, "rows") == [9]
    assert [counts["used"]] == numbers(text, "used") == [3]
    assert counts["skipped"]["longer than sequence_len 300"] == 1
    assert sum(counts["skipped"].values()) == 6
    assert counts["first_skipped"]["longer than sequence_len 300"] == 6
    assert list(counts["lengths"]["whole row"].values()) == numbers(text, "whole row")
    assert [counts["tokens"]] == numbers(text, "tokens per epoch")
    assert [counts["trained_tokens"]] == numbers(text, "trained tokens")


def test_a_second_stage_is_inspected_before_the_first_has_run(workplace: Path) -> None:
    write_recipe(workplace, "stage1.yml")
    later = {"sftkey_method": "key-tag", "output_dir": "outputs/stage2", "sftkey_after": "stage1.yml"}
    result = inspect(write_recipe(workplace, "stage2.yml", base_model="outputs/stage1", **later), "--rows", "0")
    assert result.exit_code == 0, result.output
    assert "stage1.yml has not been run yet; the tokenizer is that of Qwen/Qwen3-8B-Base" in result.stdout
    assert not (workplace / "outputs").exists()


def test_what_is_held_out_and_what_has_no_column(workplace: Path) -> None:
    from sftkey.datasets.cot_collection import held_out

    sources = [f"Count to {number}." for number in range(3_000)]
    rows = [{"source": source, "rationale": "One, two.", "target": "two"} for source in sources]
    expected = sum(map(held_out, rows))
    assert expected
    entry = {
        "path": write_rows(workplace / "cot.jsonl", rows),
        "ds_type": "json",
        "split": "train",
        "type": "sftkey.datasets.cot_collection",
    }
    output = inspect(write_recipe(workplace, datasets=[entry]), "--rows", "0").stdout
    assert numbers(output, "skipped: held out for evaluation")[0] == expected
    assert numbers(output, "used") == [3_000 - expected]

    entry["type"] = "sftkey.datasets.openbookqa"
    result = inspect(write_recipe(workplace, datasets=[entry]))
    assert result.exit_code == 1
    assert "no column 'fact1'" in result.output
    assert "name: additional" in result.output


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"sftkey_method": "key-tagg"}, "did you mean 'key-tag'"),
        ({"sftkey_after": "recipe.yml", "base_model": None}, "in a circle"),
        ({"sftkey_after": "nothing.yml"}, "there is no file"),
        ({"base_model": None}, "base_model is missing"),
        ({"base_model": "Qwen/Nothing"}, "no tokenizer and model config there"),
        ({"datasets": [{"path": "openai/gsm8k", "name": "main", "type": "sftkey.datasets.none"}]}, "no such module"),
    ],
)
def test_errors_are_messages(workplace: Path, changes: dict[str, Any], message: str) -> None:
    result = inspect(write_recipe(workplace, **changes))
    assert result.exit_code == 1
    assert result.output.count("Error: ") == 1
    assert message in result.output


def test_data_without_a_usable_row_is_an_error_after_the_table(workplace: Path) -> None:
    data = write_rows(workplace / "rows.jsonl", AWKWARD_ROWS[1:3])
    entry = {"path": data, "ds_type": "json", "split": "train", "type": "sftkey.datasets.columns"}
    result = inspect(write_recipe(workplace, datasets=[entry]))
    assert result.exit_code == 1
    assert numbers(result.output, "used") == [0]
    assert "no row can be used" in result.output
