"""Which rows the task of own data asks about, by a recipe, and by the marker of the model that lm-eval was given."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("lm_eval")

from lm_eval.tasks import TaskManager
from sftkey.datasets.base import AnswerKind
from sftkey.datasets.holdout import is_held_out
from sftkey.evaluation.own_rows import own_rows
from sftkey.evaluation.task_files import tasks_folder
from sftkey.util.errors import UserError

ENTRY = {"path": "rows.jsonl", "type": "sftkey.datasets.columns"}
RECIPE: dict[str, Any] = {
    "datasets": [ENTRY],
    "sftkey_columns": {"question": "q", "thinking": "why", "answer": "a"},
    "sftkey_answers": "number",
    "sftkey_held_out": 0.3,
}
ROWS = [{"q": f"{number} + 1?", "why": "I add.", "a": f"{number + 1} marbles"} for number in range(40)]


def write(name: str, rows: list[dict[str, Any]]) -> None:
    Path(name).write_text("".join(json.dumps(row) + "\n" for row in rows))


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory, with the rows."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    write("rows.jsonl", ROWS)
    return tmp_path


def trained(recipe: dict[str, Any], name: str = "out") -> str:
    Path(name).mkdir()
    (Path(name) / "sftkey_stage.json").write_text(json.dumps({"recipe": {"name": "r.yml", "config": recipe}}))
    return name


def task(metadata: dict[str, Any], name: str = "sftkey_own") -> Any:
    manager = TaskManager(include_path=str(tasks_folder()), include_defaults=False, metadata=metadata)
    return manager.load_task_or_group(name)[name]


def test_the_held_out_rows_and_no_others() -> None:
    found = own_rows(RECIPE, "r.yml")
    assert found.name == "rows.jsonl"
    assert found.on.kind is AnswerKind.NUMBER
    assert list(found.rows["q"]) == [row["q"] for row in ROWS if is_held_out(row["q"], 0.3)]
    assert found.rows.column_names == ["q", "a"]


def test_a_test_file_of_the_users_own_is_taken_whole_and_needs_no_thinking() -> None:
    write("test.jsonl", [{"q": "1 + 1?", "a": 2}, {"q": "1 + 2?", "a": 3}])
    recipe = {key: value for key, value in RECIPE.items() if key != "sftkey_held_out"}
    found = own_rows({**recipe, "test_datasets": [{**ENTRY, "path": "test.jsonl"}]}, "r.yml")
    assert list(found.rows["q"]) == ["1 + 1?", "1 + 2?"]
    assert found.name == "rows.jsonl"


def test_several_files_are_one_set_without_duplicates() -> None:
    write("more.jsonl", [*ROWS, {"q": "100 + 1?", "why": "I add.", "a": "101"}])
    found = own_rows({**RECIPE, "datasets": [ENTRY, {**ENTRY, "path": "more.jsonl"}], "sftkey_held_out": 0.99}, "r.yml")
    assert len(found.rows) == len(set(found.rows["q"])) >= 38


def test_conversations_under_different_names_are_no_one_set() -> None:
    for name, column, role, content in (("a", "messages", "role", "content"), ("b", "chat", "from", "value")):
        turns = [(("user", f"{name} {number}?"), ("assistant", f"<think>t</think>{number}")) for number in range(20)]
        write(f"{name}.jsonl", [{column: [{role: who, content: said} for who, said in row]} for row in turns])
    entry = {"path": "a.jsonl", "type": "sftkey.datasets.messages"}
    recipe = {"datasets": [entry, {**entry, "sftkey_turns": "all"}], "sftkey_held_out": 0.99}
    assert len(own_rows(recipe, "r.yml").rows) > 15
    other = {**entry, "path": "b.jsonl", "field_messages": "chat"}
    with pytest.raises(UserError, match=r"r\.yml: datasets: its files have different columns; give them the same"):
        own_rows({**recipe, "datasets": [entry, other]}, "r.yml")


def test_conversations_of_which_none_can_be_read_say_why() -> None:
    write("chats.jsonl", [{"messages": [{"role": "x", "content": "1?"}, {"role": "y", "content": "1"}]}] * 5)
    entry = {"path": "chats.jsonl", "type": "sftkey.datasets.messages"}
    with pytest.raises(UserError, match="no row to evaluate among 5: 5 unknown role"):
        own_rows({"datasets": [entry], "sftkey_held_out": 0.5}, "r.yml")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"sftkey_held_out": None}, r"no row of rows.jsonl is held out of training; set sftkey_held_out: 0.1"),
        ({"sftkey_held_out": 1e-9}, "no row to evaluate among 40: none is held out"),
        ({"sftkey_columns": {"question": "Q"}}, "no column 'Q' in the data; it has: a, q, why"),
        ({"sftkey_columns": {"question": "q", "answer": "A"}}, "no column 'A' in the data"),
        ({"sftkey_columns": {"reason": "q"}}, "sftkey_columns: reason unknown"),
        ({"sftkey_columns": 3}, r"r.yml: datasets: sftkey_columns: 3; it maps question, thinking, answer, options"),
        ({"sftkey_answers": "essay"}, "sftkey_answers: 'essay' is not one of number, maths, option, text"),
        (
            {"datasets": [{**ENTRY, "path": "gone.jsonl"}]},
            r"r.yml: datasets\[0\]: there is no gone.jsonl; a path is rel",
        ),
        ({"datasets": "rows.jsonl"}, "datasets: it is no list of entries"),
        ({"datasets": [{"path": "x", "type": "os.path"}]}, "it has no rows of its own"),
        ({"sftkey_held_out": "much"}, "r.yml: datasets: sftkey_held_out: 'much' is not a share of the rows"),
        ({"sftkey_answers": "option"}, "no row to evaluate among 40: .* no lettered options in the question"),
    ],
)
def test_what_keeps_them_from_being_evaluated_is_one_line(change: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message) as error:
        own_rows({**RECIPE, **change}, "r.yml")
    assert "\n" not in str(error.value)


SHAPES: list[Any] = [
    3,
    -1,
    2.5,
    True,
    "",
    [3],
    [[]],
    [None],
    {"a": 1},
    {"a": {}},
    {"question": 3},
    float("nan"),
    10**400,
]
OF_A_RECIPE = "datasets test_datasets sftkey_columns sftkey_answers sftkey_held_out sftkey_turns".split()
OF_AN_ENTRY = (
    "path name split revision data_files ds_type sftkey_columns field_messages field_thinking message_property_mappings "
    "roles sftkey_turns field_tools drop_system_message"
).split()


@pytest.mark.parametrize("name", ["columns", "messages"])
def test_a_markers_keys_of_another_shape_are_one_line_that_names_file_and_key(name: str) -> None:
    """Whatever a stranger wrote there. Where nothing reads a key, or the value says nothing, the rows are found."""
    chat = [{"role": "user", "content": "?"}, {"role": "assistant", "content": "<think>t</think>1"}]
    rows = [{**row, "messages": [{**chat[0], "content": row["q"]}, chat[1]]} for row in ROWS]
    write("rows.jsonl", rows)
    recipe = {**RECIPE, "datasets": [{**ENTRY, "type": f"sftkey.datasets.{name}"}]}
    refused = 0
    for key in (*OF_A_RECIPE, *(f"datasets.{key}" for key in OF_AN_ENTRY)):
        for value in SHAPES:
            inner = key.removeprefix("datasets.")
            change = {key: value} if inner == key else {"datasets": [{**recipe["datasets"][0], inner: value}]}
            try:
                own_rows({**recipe, **change}, "r.yml")
            except UserError as error:
                said = str(error)
                assert said.startswith("r.yml: "), said
                assert inner in said or (inner == "message_property_mappings" and "sftkey_columns" in said), said
                assert "\n" not in said
                assert len(said) < 400
                refused += 1
    assert refused > 100


@pytest.mark.parametrize("key", ["pretrained", "peft", "model", "tokenizer", "lora_local_path", "sftkey_stage"])
def test_the_task_finds_its_rows_by_the_models_marker(key: str) -> None:
    found = task({"pretrained": "base/model", key: trained(RECIPE)})
    assert [found.doc_to_text(doc) for doc in found.test_docs()] == [doc["q"] for doc in found.test_docs()]
    assert len(found.test_docs()) == sum(is_held_out(row["q"], 0.3) for row in ROWS)
    assert found.config.metadata["sftkey_data"] == "rows.jsonl"
    assert found.config.metadata["sftkey_answers"] == "number"
    json.dumps(found.dump_config(), default=str)


@pytest.mark.parametrize(("length", "tokens"), [(400, 300), (None, 1024), ("long", 1024), (-5, 1024), (True, 1024)])
def test_outputs_may_be_as_long_as_what_was_trained(length: object, tokens: int) -> None:
    found = task({"pretrained": trained({**RECIPE, "sequence_len": length})})
    assert found.config.generation_kwargs["max_gen_toks"] == tokens


def test_the_rules_are_those_of_the_kind() -> None:
    found = task({"pretrained": trained(RECIPE)})
    docs = list(found.test_docs())
    output = "<Thinking>I add.</Thinking><Answer>So there are {} marbles in all.</Answer>"
    outputs = [[output.format(int(doc["a"].split()[0]) + (index == 0))] for index, doc in enumerate(docs)]
    (ensemble,) = found._filters
    answers = ensemble.filters[0]().apply(outputs, docs)
    verdicts = [found.process_results(doc, [answer])["acc"] for doc, answer in zip(docs, answers, strict=True)]
    assert verdicts == [0, *[1] * (len(docs) - 1)]


def test_another_kind_than_at_training_can_be_said() -> None:
    found = task({"sftkey_stage": trained(RECIPE), "sftkey_answers": "text"}, "sftkey_own_plain")
    assert found.config.metadata["sftkey_answers"] == "text"


def test_a_model_that_was_not_trained_here_says_what_to_do() -> None:
    with pytest.raises(UserError, match="use `sftkey eval OUTPUT_DIR`, or add --metadata"):
        task({"pretrained": "Qwen/Qwen3-8B-Base"})


def test_commonsenseqa_with_explanations_is_scored_by_its_options(shared_dir: Path) -> None:
    lines = (shared_dir / "data" / "commonsenseqa" / "train.jsonl").read_text("utf-8").splitlines()[:300]
    Path("csqa.jsonl").write_text("\n".join(lines))
    names = {"thinking": "explanation", "answer": "answerKey", "options": "choices"}
    recipe = {"datasets": [{**ENTRY, "path": "csqa.jsonl"}], "sftkey_columns": names, "sftkey_held_out": 0.1}
    found = task({"pretrained": trained(recipe)})
    docs = list(found.test_docs())
    assert 10 < len(docs) < 60
    assert all("\nA. " in found.doc_to_text(doc) and "\nE. " in found.doc_to_text(doc) for doc in docs)
    forms = ("{key}", "({key})", "{key}. {text}", "The answer is {key}.", "{text}")
    outputs = []
    for index, doc in enumerate(docs):
        texts = dict(zip(doc["choices"]["label"], doc["choices"]["text"], strict=True))
        key = doc["answerKey"] if index % 2 else next(one for one in texts if one != doc["answerKey"])
        answer = forms[index // 2 % len(forms)].format(key=key, text=texts[key])
        outputs.append(f"<Thinking>So it is.</Thinking><Answer>{answer}</Answer>")
    (ensemble,) = found._filters
    answers = ensemble.filters[0]().apply([[output] for output in outputs], docs)
    scored = [found.process_results(doc, [answer]) for doc, answer in zip(docs, answers, strict=True)]
    assert [one["acc"] for one in scored] == [index % 2 for index in range(len(docs))]
    assert all(one["fmt"] == 1 for one in scored)
