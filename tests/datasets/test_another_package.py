"""A data set of somebody else's package (`support.their_lab`): recipe, masks, counts and lm-eval's task, as for ours.

Its rows are the real ones of CommonsenseQA with human explanations.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from sftkey.datasets.registry import find_dataset
from sftkey.format.methods import METHODS
from sftkey.format.templates import system_prompt
from sftkey.recipes.checks import check_recipe
from sftkey.training.rows import RowTokenizer
from sftkey.training.tokenization import ExampleTokenizer
from support.brute_force_mask import TRAINED, brute_force

MODULE = "support.their_lab.commonsenseqa"


@pytest.fixture
def rows(shared_dir: Path) -> list[dict[str, Any]]:
    """The 1,221 validation rows."""
    lines = (shared_dir / "data/commonsenseqa/validation.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


@pytest.fixture
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, shared_dir: Path) -> Path:
    """A working directory with the rows and a model without weights."""
    for split in ("train", "validation"):
        (tmp_path / f"{split}.jsonl").symlink_to(shared_dir / f"data/commonsenseqa/{split}.jsonl")
    model = tmp_path / "model"
    model.mkdir()
    for file in (shared_dir / "tokenizers/qwen3").iterdir():
        (model / file.name).symlink_to(file)
    (model / "config.json").write_text('{"architectures": ["Qwen3ForCausalLM"], "model_type": "qwen3"}')
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


RECIPE = {
    "base_model": "model",
    "output_dir": "out",
    "plugins": ["sftkey.SFTKeyPlugin"],
    "sftkey_method": "sft-tag",
    "chat_template": "thinking_answer",
    "sequence_len": 512,
    "micro_batch_size": 8,
    "datasets": [{"path": "validation.jsonl", "ds_type": "json", "split": "train", "type": MODULE}],
}


def test_the_recipe_is_accepted(workplace: Path) -> None:
    check_recipe(RECIPE)


@pytest.mark.parametrize("method", TRAINED)
def test_the_masks_are_those_of_an_independent_count(method: str, rows: Any, qwen3_tokenizer: Any) -> None:
    dataset = find_dataset(MODULE)
    tokenized = RowTokenizer(dataset, ExampleTokenizer(qwen3_tokenizer, METHODS[method], dataset.untagged), 512)(rows)
    assert len(tokenized) == 1_221
    for row, example in zip(rows, tokenized, strict=True):
        assert not isinstance(example, str)
        letters = dict(zip(row["choices"]["label"], row["choices"]["text"], strict=True))
        question = "\n".join([row["question"], *(f"{letter}. {text}" for letter, text in letters.items())])
        prompt = f"<|im_start|>system\n{system_prompt()}<|im_end|>\n<|im_start|>user\n{question}<|im_end|>\n"
        prompt += "<|im_start|>assistant\n"
        answer = f"{row['answerKey']}. {letters[row['answerKey']]}"
        expected = brute_force(qwen3_tokenizer, prompt, row["explanation"], answer, method)
        assert (example.input_ids, example.labels) == expected


def test_inspect_counts_its_rows(workplace: Path) -> None:
    pytest.importorskip("axolotl")
    from click.testing import CliRunner
    from sftkey.cli.main import sftkey

    Path("recipe.yml").write_text(yaml.safe_dump(RECIPE))
    result = CliRunner().invoke(sftkey, ["inspect", "recipe.yml", "--rows", "1", "--trust-remote-code"])
    assert result.exit_code == 0, result.output
    assert "1,221" in result.output
    assert "<Thinking>" in result.output


def test_lm_eval_loads_a_task_of_five_lines(workplace: Path, rows: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    tasks = pytest.importorskip("lm_eval.tasks")
    monkeypatch.delenv("SFTKEY_JUDGE_BASE_URL", raising=False)
    folder = Path(__file__).parents[1] / "support/their_lab/tasks"
    manager = tasks.TaskManager(include_path=str(folder), include_defaults=False)
    assert manager.all_subtasks == ["their_commonsenseqa"]
    task = manager.load_task_or_group("their_commonsenseqa")["their_commonsenseqa"]
    docs = task.test_docs()
    assert len(docs) == 1_221
    assert task.doc_to_text(docs[0]).startswith(rows[0]["question"] + "\nA. ")
    assert task.doc_to_target(docs[0]).startswith(rows[0]["answerKey"] + ". ")
    assert task.config.generation_kwargs == {"until": [], "do_sample": False, "max_gen_toks": 1024}
    outputs = [f"<Thinking>so</Thinking><Answer>{letter}</Answer>" for letter in (rows[0]["answerKey"], "Z")]
    (step,) = task._filters[0].filters
    answers = step().apply([[output] for output in outputs], [rows[0], rows[0]])
    assert [task.process_results(rows[0], [answer])["acc"] for answer in answers] == [1, 0]


def test_a_report_names_a_module_without_importing_it() -> None:
    from sftkey.report.stages import data_name

    assert data_name("rows.jsonl", "strangers_lab.svamp") == "svamp"
    assert data_name(None, "strangers_lab.gsm8k") == "strangers_lab.gsm8k"
    assert data_name("rows.jsonl", "sftkey.datasets.columns") == "rows.jsonl"
    assert data_name("openai/gsm8k", "sftkey.datasets.gsm8k") == "gsm8k"
