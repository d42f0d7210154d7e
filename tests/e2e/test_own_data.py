"""README's "Your own data", copied and run: real rows under other column names, a tiny model, the real commands."""

from __future__ import annotations

import hashlib
import json
import re
import unicodedata
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import yaml
from support.availability import REPOSITORY
from support.commands import run, succeeded
from support.warm_commands import WarmCommands
from transformers import AutoTokenizer

pytestmark = pytest.mark.slow

# What a tiny model on a CPU needs beside what `init` writes: few steps of few rows, and a short prompt.
FEW = ["num_epochs=0.1", "sftkey_warmup_epochs=0.05", "micro_batch_size=4", "gradient_accumulation_steps=1"]
MORE = {
    "init": ["-y", *FEW, "learning_rate=1e-3", "sequence_len=1024"],
    "run": ["--eval-limit", "2", "--eval-model-args", "max_length=1024"],
    "diagnose": ["--rows", "2", "--max-new-tokens", "16", "--no-gradient"],
}
SHORT_PROMPT = "default_system_message: Think first, then answer.\n"
COLUMNS = ("prompt", "cot", "target")


def blocks(kind: str) -> list[str]:
    section = re.findall(
        r"^## Your own data\n(.*?)^## ", (REPOSITORY / "README.md").read_text("utf-8"), flags=re.M | re.S
    )[0]
    fences = re.findall(r"^```(\w*)\n(.*?)^```$", section, flags=re.M | re.S)
    return [block for language, block in fences if language == kind]


def test_readme_from_rows_to_a_shared_run(
    tmp_path: Path, tiny_root: Path, gsm8k_rows: dict[str, list[dict[str, Any]]]
) -> None:
    (row,) = map(json.loads, blocks("json"))
    assert sum(len(block.splitlines()) for kind in ("json", "yaml", "") for block in blocks(kind)) <= 20
    assert set(row) == set(COLUMNS)
    parts = [(one["question"], *one["answer"].split("\n#### ")) for one in gsm8k_rows["train"][:300]]
    (tmp_path / "my_rows.jsonl").write_text(
        "\n".join(json.dumps(dict(zip(COLUMNS, part, strict=True))) for part in parts)
    )
    (tmp_path / "Qwen").mkdir()
    (tmp_path / "Qwen" / "Qwen3-8B-Base").symlink_to(tiny_root / "model")

    commands = [line.partition("#")[0].split() for block in blocks("") for line in block.splitlines()]
    assert [words[1] for words in commands] == ["init", "inspect", "run", "diagnose", "report", "share"]
    results = {}
    for words in commands:
        results[words[1]] = succeeded(run(*words, *MORE.get(words[1], []), cwd=tmp_path, timeout=1200))
        if words[1] == "init":
            for path in tmp_path.glob("my_rows_stage*.yml"):
                path.write_text(path.read_text() + SHORT_PROMPT)
    assert "question prompt, thinking cot, answer target; answers: number" in results["init"].stderr
    recipe = yaml.safe_load((tmp_path / "my_rows_stage1.yml").read_text())
    assert (recipe["sftkey_answers"], recipe["sftkey_columns"]["thinking"]) == ("number", "cot")
    assert "Natalia sold clips" in results["inspect"].stdout
    outputs = tmp_path / "outputs" / "qwen3_8b" / "my_rows"
    markers = [json.loads((outputs / stage / "sftkey_stage.json").read_text()) for stage in ("stage1", "stage2")]
    assert [marker["method"] for marker in markers] == ["sft-tag", "key-tag"]
    held_out = markers[0]["data"][0]["rows_skipped"]["held out for evaluation"]
    assert markers[0]["data"][0]["rows_used"] + held_out + markers[0]["data"][0]["rows_skipped"].get(
        "longer than sequence_len", 0
    ) == len(parts)
    assert markers[1]["after"]["id"] == markers[0]["id"]
    assert results["run"].stdout.count("sftkey_own") == 2
    (samples,) = (outputs / "stage2" / "eval").rglob("samples_sftkey_own_*.jsonl")
    logged = [json.loads(line) for line in samples.read_text().splitlines()]
    trained = {part[0] for part in parts} - {one["doc"]["prompt"] for one in logged}
    assert len(logged) == 2
    assert len(trained) == len(parts) - 2
    assert all(set(one["doc"]) == {"prompt", "target"} for one in logged)
    assert "2 of" in results["diagnose"].stdout
    page = (tmp_path / "report" / "index.html").read_text()
    assert "my_rows" in page
    assert "sftkey_own" in results["share"].stdout


def held_out_by_hand(question: str, share: float) -> bool:
    """The documented rule, written down again: the hash of the letters and digits of a question as it is asked."""
    text = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", question).casefold())
    digest = hashlib.sha256("".join(sign for sign in text if sign.isalnum()).encode()).hexdigest()
    return int(digest[:16], 16) / 2**64 < share


@pytest.fixture(scope="module")
def warm() -> Iterator[WarmCommands]:
    with WarmCommands() as commands:
        yield commands


def test_commonsenseqa_with_explanations_from_rows_to_a_shared_run(
    tmp_path: Path, tiny_root: Path, shared_dir: Path, warm: WarmCommands
) -> None:
    lines = (shared_dir / "data" / "commonsenseqa" / "train.jsonl").read_text("utf-8").splitlines()[:300]
    (tmp_path / "csqa.jsonl").write_text("\n".join(lines))
    rows = [json.loads(line) for line in lines]
    asked = {
        "\n".join(
            [row["question"], *map(". ".join, zip(row["choices"]["label"], row["choices"]["text"], strict=True))]
        ): row
        for row in rows
    }
    expected = {question: row for question, row in asked.items() if held_out_by_hand(question, 0.1)}
    assert len(asked) == len(rows)
    (tmp_path / "Tiny-Base").symlink_to(tiny_root / "model")
    outputs = tmp_path / "outputs" / "tiny" / "csqa"
    typed = partial(warm.run, cwd=tmp_path)
    init = succeeded(typed("sftkey", "init", "csqa.jsonl", "--model-id", "Tiny-Base", *MORE["init"]))
    assert "question question, thinking explanation, answer answerKey, options choices; answers: option" in init.stderr
    for path in tmp_path.glob("csqa_stage*.yml"):
        assert path.read_text().startswith(f"# Tiny-Base on csqa, Stage {path.stem[-1]} (")
        path.write_text(path.read_text() + SHORT_PROMPT)
    told = init.stdout.split()
    assert told == ["sftkey", "run", "csqa_stage2.yml", "--eval"]
    ran = succeeded(typed(*told, *MORE["run"], "--launcher", "python"))
    found = succeeded(typed("sftkey", "diagnose", str(outputs / "stage1"), *MORE["diagnose"], "--json"))
    succeeded(typed("sftkey", "report", "outputs", "-o", "report"))
    shared = succeeded(typed("sftkey", "share", str(outputs / "stage2"), "-o", "bundle"))

    markers = [json.loads((outputs / stage / "sftkey_stage.json").read_text()) for stage in ("stage1", "stage2")]
    for marker in markers:
        assert marker["data"][0]["rows_skipped"] == {"held out for evaluation": len(expected)}
        assert marker["data"][0]["rows_used"] == len(rows) - len(expected)
    assert markers[1]["after"]["id"] == markers[0]["id"]
    for stage in ("stage1", "stage2"):
        (samples,) = (outputs / stage / "eval").rglob("samples_sftkey_own_*.jsonl")
        logged = [json.loads(line) for line in samples.read_text().splitlines()]
        assert [one["question"] for one in logged] == list(expected)[: len(logged)]
        for one in logged:
            row = expected[one["question"]]
            assert one["reference"] == f"{row['answerKey']}. {row['choices']['text']['ABCDE'.index(row['answerKey'])]}"
            assert one["question"] in one["arguments"]["gen_args_0"]["arg_0"]
    assert ran.stdout.count("sftkey_own") == 2
    assert json.loads(found.stdout)["held_out"] == f"2 of {len(rows)} rows of csqa.jsonl"
    scores = (tmp_path / "report" / "tables" / "score.md").read_text()
    assert f"Items evaluated: csqa 2 of {len(expected)}." in scores
    assert "| Tiny-Base | SFT-Tag" in scores
    assert "GSM8K" not in (tmp_path / "report" / "index.html").read_text()
    assert shared.stdout.strip() == "bundle"
    card = (tmp_path / "bundle" / "README.md").read_text()
    assert "# Tiny-Base trained on csqa.jsonl with SFTKey-Tag" in card
    assert (
        f"| csqa.jsonl train | local | {len(rows) - len(expected)} | held out for evaluation: {len(expected)} |" in card
    )
    assert "| key-tag | sftkey_own | 2 |" in card


def test_conversations_are_asked_with_their_history_and_judged_by_the_last_answer(
    tmp_path: Path, tiny_root: Path, warm: WarmCommands
) -> None:
    """Of numbers that a model soon gives without looking, so that some of its answers are right and others wrong."""
    numbers = [3 if index % 5 < 3 else 3 + index % 5 for index in range(60)]
    rows = [
        {
            "conversations": [
                {"from": "system", "value": "Be brief."},
                {"from": "human", "value": f"Keep {number} ({index})."},
                {"from": "gpt", "value": "<think>\nI keep it.\n</think>\n\nKept."},
                {"from": "human", "value": "Which?"},
                {"from": "gpt", "value": f"<think>\nI look.\n</think>\n\nIt is {number}."},
            ]
        }
        for index, number in enumerate(numbers)
    ]
    (tmp_path / "chats.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "Tiny").mkdir()
    for file in (tiny_root / "model").iterdir():
        if file.name != "chat_template.jinja":
            (tmp_path / "Tiny" / file.name).symlink_to(file)
    typed = partial(warm.run, cwd=tmp_path)
    sizes = ("num_epochs=5", "sftkey_warmup_epochs=0.5", "learning_rate=5e-3", "micro_batch_size=8")
    init = succeeded(
        typed("sftkey", "init", "chats.jsonl", "--model-id", "Tiny", "-y", *sizes, "gradient_accumulation_steps=1")
    )
    assert "every turn with reasoning is trained; answers: number" in init.stderr
    assert init.stdout.endswith("sftkey run chats_stage2.yml --eval\n")
    ran = succeeded(typed("sftkey", "run", "chats_stage1.yml", "--eval", "--launcher", "python"))

    firsts = [row["conversations"][1]["value"] for row in rows]
    held_out = [index for index, first in enumerate(firsts) if held_out_by_hand(first, 0.1)]
    assert 2 < len(held_out) < len(rows) / 2
    outputs = tmp_path / "outputs" / "tiny" / "chats" / "stage1"
    marker = json.loads((outputs / "sftkey_stage.json").read_text())
    assert marker["data"][0]["rows_used"] == 2 * (len(rows) - len(held_out))
    tokenizer = AutoTokenizer.from_pretrained(outputs)
    (samples,) = (outputs / "eval").rglob("samples_sftkey_own_*.jsonl")
    logged = [json.loads(line) for line in samples.read_text().splitlines()]
    for index, one in zip(held_out, logged, strict=True):
        history = [
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": firsts[index]},
            {"role": "assistant", "content": "Kept.", "reasoning_content": "I keep it."},
            {"role": "user", "content": "Which?"},
        ]
        asked = tokenizer.apply_chat_template(history, tokenize=False, add_generation_prompt=True)
        assert one["arguments"]["gen_args_0"]["arg_0"] == asked
        assert one["acc"] == (re.findall(r"\d+", one["resps"][0][0])[-1:] == [str(numbers[index])])
    assert {one["acc"] for one in logged} == {0.0, 1.0}
    assert ran.stdout.count("sftkey_own") == 1
