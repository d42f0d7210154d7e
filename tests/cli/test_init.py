"""``sftkey init``: rows in, the recipes of both stages out, or one line that says what is wrong with the rows."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from click.testing import CliRunner, Result
from datasets import Dataset, DatasetDict
from sftkey.cli.main import sftkey
from sftkey.datasets.holdout import is_held_out
from sftkey.recipes.checks import check_recipe

ROWS = [
    {
        "prompt": f"Tom has {number} apples and buys 4. How many?",
        "cot": f"{number} + 4 = {number + 4}.",
        "target": number + 4,
    }
    for number in range(40)
]
SHAPE = {
    "model_type": "llama",
    "vocab_size": 512,
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 2048,
}


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory, with a model's configuration."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    (tmp_path / "Tiny-Base").mkdir()
    (tmp_path / "Tiny-Base" / "config.json").write_text(json.dumps(SHAPE))
    return tmp_path


def write(name: str, rows: list[dict[str, Any]]) -> str:
    path = Path(name)
    if path.suffix == ".csv":
        with path.open("w", newline="") as file:
            writer = csv.DictWriter(file, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
    elif path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(rows), path)
    else:
        lines = "".join(json.dumps(row) + "\n" for row in rows)
        path.write_text(json.dumps(rows) if path.suffix == ".json" else lines)
    return name


def init(*arguments: str, answers: str | None = None) -> Result:
    gpus = () if "--gpus" in arguments else ("--gpus", "0")
    return CliRunner().invoke(sftkey, ["init", *arguments, *gpus], input=answers, prog_name="sftkey")


def recipes(result: Result, name: str) -> list[dict[str, Any]]:
    assert result.exit_code == 0, result.output
    found = [yaml.safe_load(Path(f"{name}_{stage}.yml").read_text()) for stage in ("stage1", "stage2")]
    check_recipe({**found[0]})
    return found


@pytest.mark.parametrize("suffix", ["jsonl", "json", "csv", "parquet"])
def test_both_recipes_for_every_format(suffix: str) -> None:
    result = init(write(f"My Rows.{suffix}", ROWS), "--model-id", "Tiny-Base", "-y", "num_epochs=1")
    first, second = recipes(result, "my_rows")
    assert first["sftkey_columns"] == {"question": "prompt", "thinking": "cot", "answer": "target"}
    assert (first["sftkey_answers"], first["sftkey_held_out"], first["num_epochs"]) == ("number", 0.1, 1)
    assert (first["base_model"], first["output_dir"]) == ("Tiny-Base", "outputs/tiny/my_rows/stage1")
    assert (second["sftkey_method"], second["sftkey_after"]) == ("key-tag", "my_rows_stage1.yml")
    data = ("datasets", "sftkey_columns", "sftkey_answers", "sftkey_held_out", "sequence_len")
    assert {key: first[key] for key in data} == {key: second[key] for key in data}
    text = Path("my_rows_stage1.yml").read_text()
    assert text.startswith("# Tiny-Base on My Rows, Stage 1 (SFT-Tag)")
    assert "GSM8K" not in text
    assert "# What the answers are" in text
    assert result.stdout == "sftkey run my_rows_stage2.yml --eval\n"


def test_nothing_is_overwritten_without_force() -> None:
    arguments = (write("rows.jsonl", ROWS), "--model-id", "Tiny-Base", "-y")
    recipes(init(*arguments), "rows")
    Path("rows_stage1.yml").write_text("mine")
    result = init(*arguments)
    assert result.exit_code == 1
    assert "rows_stage1.yml exists and says something else" in result.stderr
    assert Path("rows_stage1.yml").read_text() == "mine"
    recipes(init(*arguments, "--force"), "rows")


def test_it_asks_and_takes_what_is_said() -> None:
    data = write("rows.jsonl", [{"a1": row["prompt"], "a2": row["cot"], "a3": row["target"]} for row in ROWS])
    first, _ = recipes(init(data, answers="a1\na2\na3\ntext\nTiny-Base\n"), "rows")
    assert first["sftkey_columns"] == {"question": "a1", "thinking": "a2", "answer": "a3"}
    assert (first["sftkey_answers"], first["base_model"]) == ("text", "Tiny-Base")
    accepted, _ = recipes(init(data, "--force", answers="\n\n\n\nTiny-Base\n"), "rows")
    assert accepted["sftkey_answers"] == "number"


def test_what_is_said_in_place_of_a_proposal_decides_the_kind_and_is_looked_at() -> None:
    data = write("rows.jsonl", [{**row, "words": f"All the apples of Tom: {row['target']}"} for row in ROWS])
    first, _ = recipes(init(data, answers="prompt\ncot\nwords\n\nTiny-Base\n"), "rows")
    assert (first["sftkey_columns"]["answer"], first["sftkey_answers"]) == ("words", "text")
    twice = init(data, "--force", answers="prompt\ncot\ncot\n")
    assert "the question, the thinking and the answer are three different columns" in twice.stderr
    given = init(data, "--force", "--answers", "maths", answers="prompt\ncot\ntarget\nTiny-Base\n")
    assert recipes(given, "rows")[0]["sftkey_answers"] == "maths"


def test_options_are_measured_and_do_not_count_as_one_of_the_three_columns() -> None:
    rows = [
        {"q": f"Which is {n}?", "w": "Fish live there.", "k": "B", "opa": "b" * 2000, "opb": "r" * 2000}
        for n in range(40)
    ]
    columns = ("--question", "q", "--thinking", "w", "--answer", "k")
    first, _ = recipes(init(write("rows.jsonl", rows), "--model-id", "Tiny-Base", "-y", *columns), "rows")
    assert (first["sftkey_columns"]["options"], first["sequence_len"]) == (["opa", "opb"], 2048)
    same = [{"x": "s", "y": "s", "z": "s", "o": ["s", "t"]}] * 20
    two = ("--question", "x", "--answer", "y", "--options", "o", "--model-id", "Tiny-Base", "-y")
    unsure = init(write("unsure.jsonl", [{**row, "v\n\x1b[31m": "s"} for row in same]), *two)
    (line,) = [line for line in unsure.stderr.splitlines() if line.startswith("Error: ")]
    assert "can't be told apart for sure" in line
    assert line.endswith("There are x, y, z, o, v \\x1b[31m")


def test_a_test_file_takes_the_place_of_the_held_out_part() -> None:
    test = write("test.jsonl", [{"prompt": "1 + 1?", "target": 2}])
    first, _ = recipes(init(write("rows.jsonl", ROWS), "--test", test, "--model-id", "Tiny-Base", "-y"), "rows")
    assert first["test_datasets"][0]["path"] == "test.jsonl"
    assert "sftkey_held_out" not in first


def test_test_rows_that_are_trained_are_said_or_refused() -> None:
    data = write("rows.jsonl", ROWS)
    common = ("--model-id", "Tiny-Base", "-y", "--test")
    same = init(data, *common, data)
    assert "--test rows.jsonl: all of its 40 questions are in rows.jsonl, which is trained" in same.stderr
    some = init(data, *common, write("test.jsonl", [ROWS[0], {"prompt": "1 + 1?", "target": 2}]))
    assert "note: 1 of the 2 questions of test.jsonl are in rows.jsonl, too, and trained" in some.stderr
    missing = init(data, "--force", *common, write("other.jsonl", [{"q": "1 + 1?", "target": 2}]))
    assert "other.jsonl: test_datasets: own: no column 'prompt' in the data; it has: q, target" in missing.stderr


def test_a_column_of_options_that_can_not_be_read_is_said() -> None:
    result = init(write("rows.jsonl", [{**row, "options": "none"} for row in ROWS]), "--model-id", "Tiny-Base", "-y")
    assert "options" not in recipes(result, "rows")[0]["sftkey_columns"]
    assert "note: the column options isn't used: it holds no options that can be read" in result.stderr
    assert "note: held out for evaluation: 4 of 40 rows" in result.stderr


def test_commonsenseqa_as_it_is_published_with_explanations(shared_dir: Path) -> None:
    lines = (shared_dir / "data" / "commonsenseqa" / "train.jsonl").read_text("utf-8").splitlines()[:100]
    Path("csqa.jsonl").write_text("\n".join(lines))
    first, _ = recipes(init("csqa.jsonl", "--model-id", "Tiny-Base", "-y"), "csqa")
    assert first["sftkey_columns"] == {"thinking": "explanation", "answer": "answerKey", "options": "choices"}
    assert first["sftkey_answers"] == "option"


def chats(reasoning: bool = True) -> list[dict[str, Any]]:
    """Conversations of two turns, as they are published; the second asks for a number."""
    turns = [("Hello", "Hi.", "I greet."), ("{} + 4?", "{}", "I add 4.")]
    return [
        {
            "source": "x",
            "conversations": [
                message
                for asked, told, thought in turns
                for message in (
                    {"from": "human", "value": f"{number}: {asked.format(number)}"},
                    {"from": "gpt", "value": f"<think>\n{thought}\n</think>\n\n" * reasoning + told.format(number + 4)},
                )
            ],
        }
        for number in range(40)
    ]


@pytest.mark.parametrize("template", [None, "{{ messages }}", "{{ messages }}<think>"])
def test_conversations(template: str | None) -> None:
    if template:
        Path("Tiny-Base/chat_template.jinja").write_text(template)
    result = init(write("chats.jsonl", chats()), "--model-id", "Tiny-Base", "-y")
    first, second = recipes(result, "chats")
    assert (
        "note: conversations in conversations: every turn with reasoning is trained; answers: number" in result.stderr
    )
    assert first["datasets"] == [
        {
            "path": "chats.jsonl",
            "split": "train",
            "type": "sftkey.datasets.messages",
            "field_messages": "conversations",
        }
    ]
    assert (first["sftkey_turns"], first["sftkey_answers"], first["sftkey_held_out"]) == ("all", "number", 0.1)
    assert (first.get("sftkey_format"), first["chat_template"]) == (
        ("think", "tokenizer_default") if template else (None, "thinking_answer")
    )
    assert second["sftkey_after"] == "chats_stage1.yml"
    closed = "</think>" if template else "</Thinking>"
    assert f"loss on all after {closed}" in Path("chats_stage2.yml").read_text().replace("\n# ", " ")
    check_recipe(second)


def test_conversations_with_reasoning_beside_the_text_take_the_format_that_the_model_writes() -> None:
    rows = [
        {
            "messages": [
                {"role": "user", "content": [{"type": "text", "text": f"{number}?"}]},
                {"role": "assistant", "content": "so " * 100, "reasoning_content": "Hm."},
            ]
        }
        for number in range(40)
    ]
    data = write("chats.jsonl", rows)
    for template, written in (("{{ messages }}", None), ("{{ messages }}<think>", "think")):
        Path("Tiny-Base/chat_template.jinja").write_text(template)
        result = init(data, "--model-id", "Tiny-Base", "-y", "--force")
        first, _ = recipes(result, "chats")
        assert (first.get("sftkey_format"), first["sftkey_answers"]) == (written, "text")
        assert "sftkey_turns" not in first
        assert "let a judge decide (SFTKEY_JUDGE_BASE_URL)" in result.stderr


def test_conversations_in_which_nothing_is_to_be_learned_or_beside_columns() -> None:
    refused = init(write("chats.jsonl", chats(reasoning=False)), "--model-id", "Tiny-Base", "-y")
    assert (
        "chats.jsonl: conversations holds conversations, and none can be trained on (40 no think block)"
        in refused.stderr
    )
    both = [{**row, **chat} for row, chat in zip(ROWS, chats(), strict=True)]
    result = init(write("both.jsonl", both), "--model-id", "Tiny-Base", "-y")
    assert recipes(result, "both")[0]["datasets"][0]["type"] == "sftkey.datasets.columns"
    assert "note: conversations holds conversations, too, and isn't used" in result.stderr
    asked, _ = recipes(init(write("chats.jsonl", chats()), answers="text\nTiny-Base\n"), "chats")
    assert asked["sftkey_answers"] == "text"


def test_the_held_out_share_goes_by_what_is_held_out() -> None:
    """By the first message of the user, which all of these conversations share but three."""
    rows = chats()
    for row in rows[3:]:
        row["conversations"][0]["value"] = "Hello"
    first, _ = recipes(init(write("chats.jsonl", rows), "--model-id", "Tiny-Base", "-y"), "chats")
    firsts = {row["conversations"][0]["value"] for row in rows}
    held_out = {text for text in firsts if is_held_out(text, first["sftkey_held_out"])}
    assert held_out
    assert held_out != firsts


@pytest.mark.parametrize(("gpus", "memory", "adapter"), [("1", "24", "lora"), ("8", "80", None), ("1", "16", "qlora")])
def test_the_batch_fits_the_gpus(gpus: str, memory: str, adapter: str | None) -> None:
    data, model = write("rows.jsonl", ROWS), "Qwen/Qwen3-8B-Base"
    result = init(data, "--model-id", model, "-y", "--gpus", gpus, "--gpu-memory", memory)
    first, _ = recipes(result, "rows")
    assert first.get("adapter") == adapter
    assert "GiB on" in result.stderr
    assert "lower" not in result.stderr
    each = " each" if gpus != "1" else ""
    assert f"# Hardware: {gpus} GPU{'s' if each else ''} with {memory} GB{each}." in Path("rows_stage1.yml").read_text()


@pytest.mark.parametrize(
    ("rows", "arguments", "message"),
    [
        ([{"x": "s", "y": "s", "z": "s"}] * 20, (), "can't be told apart for sure"),
        ([{"question": "1?", "answer": "a\n#### 1"}] * 20, (), "with #### between, as GSM8K does"),
        ([{"qa": {"q": "1?"}, "cot": "I add."}] * 20, (), "qa holds nested values"),
        (ROWS, ("--answer", "gold"), "--answer: no column 'gold' in the data"),
        (ROWS, ("--answers", "option"), "no lettered options in the question"),
        (ROWS[:1], (), "none is held out by the hash rule; add rows"),
        ([{**row, "target": " "} for row in ROWS], ("--answer", "target"), "can be trained on"),
        (ROWS, ("--gpus", "2"), "--gpu-memory: say how many GB"),
        (ROWS, ("sftkey_answers=numbers",), "sftkey_answers: 'numbers' is not one of number"),
        (ROWS, ("sftkey_columns=3",), "sftkey_columns: 3 is not a mapping"),
        (ROWS, ("-o", "rows.jsonl/recipes"), "rows.jsonl/recipes can't be written into"),
        ([{**row, "target": float("nan")} for row in ROWS], (), "target holds no text or number in more than half"),
    ],
)
def test_refused_in_one_line(
    rows: list[dict[str, Any]], arguments: tuple[str, ...], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shutil.which", lambda name, **_: None)
    result = init(write("rows.jsonl", rows), "--model-id", "Tiny-Base", "-y", *arguments)
    assert result.exit_code == 1
    (line,) = [line for line in result.stderr.splitlines() if line.startswith("Error: ")]
    assert message in line
    assert not list(Path().glob("*.yml"))


def test_files_that_datasets_can_not_read_are_refused_in_one_line() -> None:
    table = pa.table(
        [[row[name] for row in ROWS] for name in ("prompt", "cot", "target", "target")], names=["a", "b", "c", "c"]
    )
    pq.write_table(table, "twice.parquet")
    DatasetDict({"validation": Dataset.from_list(ROWS)}).save_to_disk("saved")
    for data, message in (("twice.parquet", "Multiple matches"), ("saved", "no split 'train'; it has validation")):
        result = init(data, "--model-id", "Tiny-Base", "-y")
        (line,) = [line for line in result.stderr.splitlines() if line.startswith("Error: ")]
        assert line.startswith(f"Error: DATA: {data}: its rows can't be read (")
        assert message in line
        assert result.stderr.endswith(f"{line}\n")


def test_a_folder_with_a_space_is_quoted_and_a_broken_model_is_one_of_unknown_shape() -> None:
    Path("Tiny-Base/config.json").write_text("[]")
    result = init(write("rows.jsonl", ROWS), "--model-id", "Tiny-Base", "-y", "-o", "my recipes")
    assert result.stdout == "sftkey run 'my recipes/rows_stage2.yml' --eval\n"
    assert {path.name for path in Path("my recipes").iterdir()} == {"rows_stage1.yml", "rows_stage2.yml"}


def test_a_model_is_needed_and_hostile_names_stay_names() -> None:
    evil = "question\x1b[31m\n# a: b"
    data = write("rows.jsonl", [{evil: row["prompt"], "thinking": row["cot"], "answer": row["target"]} for row in ROWS])
    assert "--model-id: name the base model" in init(data, "-y").stderr
    result = init(data, "-y", "--model-id", "Tiny-Base")
    assert "\x1b" not in result.stderr
    assert recipes(result, "rows")[0]["sftkey_columns"] == {"question": evil}
