"""What lm-eval sees of us: documents, verdicts, metrics."""

from __future__ import annotations

import json
import logging
import pickle
from dataclasses import replace

import pytest

pytest.importorskip("lm_eval")

import lm_eval.evaluator
from datasets import Dataset
from lm_eval.tasks import TaskManager
from sftkey.datasets.holdout import is_held_out, problem_key
from sftkey.datasets.openr1_math import HELD_OUT_SHARE
from sftkey.datasets.registry import DATASETS, PAPER, dataset
from sftkey.evaluation import lm_eval_tasks as harness
from sftkey.evaluation import training_prompt
from sftkey.evaluation.judge import decide as judging
from sftkey.evaluation.judge.client import JudgeVerdict
from sftkey.evaluation.judge.prompt import PAPER_PROMPT
from sftkey.evaluation.judge.settings import Fitness, JudgeMode, JudgeSettings
from sftkey.evaluation.verdicts import scores
from sftkey.format.templates import system_prompt
from sftkey.util.errors import UserError


@pytest.fixture(autouse=True)
def logs_reach_caplog(monkeypatch):
    monkeypatch.setattr(logging.getLogger("lm_eval"), "propagate", True)


def openr1_rows(count: int) -> list[dict]:
    return [
        {
            "problem": f"Compute ${number} + {number}$.",
            "answer": str(2 * number),
            "generations": ["long"],
            "uuid": str(number),
        }
        for number in range(count)
    ]


def test_held_out_rows_are_the_documents_each_problem_once(caplog):
    rows = openr1_rows(2_000)
    respelled = [{**row, "problem": row["problem"].replace("$", " ").upper()} for row in rows]
    with caplog.at_level(logging.INFO, logger="lm_eval"):
        documents = harness.documents(Dataset.from_list(rows + respelled), "openr1_math")
    expected = [row["problem"] for row in rows if is_held_out(row["problem"], HELD_OUT_SHARE)]
    assert expected
    assert documents["problem"][:] == expected
    # The traces are the bulk of a row, and would be logged with every item.
    assert set(documents.column_names) == {"problem", "answer", "uuid"}
    assert f"{len(expected)} rows are evaluated, left out: {len(expected)} duplicate" in caplog.text


def test_no_document_can_have_been_trained_on():
    rows = openr1_rows(2_000)
    documents = {
        problem_key(problem) for problem in harness.documents(Dataset.from_list(rows), "openr1_math")["problem"]
    }
    held_out = dataset("openr1_math").held_out
    assert documents.isdisjoint(problem_key(row["problem"]) for row in rows if not held_out(row))


def test_rows_without_a_reference_are_left_out_and_counted(caplog):
    rows = [
        {"question": "2+2?", "answer": "#### 4"},
        {"question": "3+3?", "answer": "six"},
        {"question": None, "answer": "#### 1"},
    ]
    with caplog.at_level(logging.INFO, logger="lm_eval"):
        documents = harness.documents(Dataset.from_list(rows), "gsm8k")
    assert documents["question"][:] == ["2+2?"]
    assert "left out: 1 missing field: question, 1 no answer" in caplog.text


def test_nothing_to_evaluate_is_an_error_that_says_why():
    with pytest.raises(ValueError, match="gsm8k: no row to evaluate among 1: 1 no answer"):
        harness.documents(Dataset.from_list([{"question": "2+2?", "answer": "four"}]), "gsm8k")
    row = next(row for row in openr1_rows(50) if not is_held_out(row["problem"], HELD_OUT_SHARE))
    with pytest.raises(ValueError, match="openr1_math: no row to evaluate among 1: none is held out"):
        harness.documents(Dataset.from_list([row]), "openr1_math")


DOCS = [{"question": f"{number}+1?", "answer": f"#### {number + 1}"} for number in range(4)]
RESPONSES = [
    ["<Thinking>a</Thinking><Answer>1</Answer>"],
    ["<Thinking>a</Thinking><Answer>a couple</Answer>"],
    ["<Thinking>a"],
    ["5"],
]


def settings(mode: JudgeMode, tmp_path) -> JudgeSettings:
    return JudgeSettings(
        base_url="http://127.0.0.1:9/v1", model="judge", mode=mode, cache_dir=tmp_path, fitness=Fitness.OFF
    )


def test_without_a_judge_the_rules_decide(monkeypatch, caplog):
    monkeypatch.delenv("SFTKEY_JUDGE_BASE_URL", raising=False)
    with caplog.at_level(logging.INFO, logger="lm_eval"):
        answers = harness.Verdicts(dataset="gsm8k", task="my_task").apply(RESPONSES, DOCS)
    assert answers == ["1", "a couple", "", "5"]
    logged = [harness.metrics({}, [answer]) for answer in answers]
    assert [metrics["acc"] for metrics in logged] == [1, 0, 0, 0]
    assert [metrics["undecided"] for metrics in logged] == [0, 1, 0, 0]
    assert [metrics["fmt"] for metrics in logged] == [1, 1, 0, 0]
    assert "rules only, no judge" in caplog.text
    assert "my_task: in 1 of 4 outputs the thinking is opened and never closed" in caplog.text
    assert "1 of 4 outputs have no thinking" in caplog.text


@pytest.mark.parametrize(
    ("mode", "asked"), [(JudgeMode.FALLBACK, ["a couple"]), (JudgeMode.ALWAYS, ["1", "a couple", "5"])]
)
def test_all_that_a_judge_decides_is_asked_at_once(monkeypatch, tmp_path, mode, asked):
    calls = []

    def judge(items, settings, **kwargs):
        calls.append([item.prediction for item in items])
        return [
            JudgeVerdict(item.prediction == "a couple" and item.reference == "2", "judge", "said so") for item in items
        ]

    monkeypatch.setattr(judging, "judge", judge)
    monkeypatch.setattr(harness.JudgeSettings, "from_environment", lambda: settings(mode, tmp_path))
    answers = harness.Verdicts(dataset="gsm8k").apply(RESPONSES, DOCS)
    assert calls == [asked]
    judged = [answer.record for answer in answers if answer.record["decided_by"] == "judge"]
    assert [record["extracted"] for record in judged] == asked
    assert answers[1].record["verdict"] == "same"
    assert answers[2].record["decided_by"] == "rule"


def test_the_log_gets_everything_and_the_aggregation_the_metrics():
    answer = harness.Verdicts(dataset="gsm8k").apply(RESPONSES[:1], DOCS[:1])[0]
    metrics = harness.metrics({}, [answer])
    # What lm-eval does with it.
    logged: dict = {"metrics": list(metrics.keys())}
    logged.update(metrics)
    aggregated = dict(metrics.items())
    assert aggregated == scores(answer.record)
    assert logged["metrics"] == list(aggregated)
    assert logged.keys() == {"metrics"} | answer.record.keys() | aggregated.keys()
    assert logged["extracted"] == "1"
    assert logged["decided_by"] == "rule"


def test_answers_travel_between_processes():
    answer = harness.Verdicts(dataset="gsm8k").apply(RESPONSES[:1], DOCS[:1])[0]
    there = pickle.loads(pickle.dumps(answer))
    assert there == answer
    assert there.record == answer.record


UTILS = "from sftkey.evaluation.lm_eval_tasks import SFTKeyTask, Verdicts, documents, metrics\n"
PLACE = """
dataset_path: json
dataset_kwargs: {data_files: {test: rows.jsonl}}
"""


@pytest.fixture
def load_task(tmp_path, monkeypatch):
    """Loads a task from the text of its YAML file, by lm-eval's own means; ``rows.jsonl`` has two questions."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in DOCS[:2]))

    def load(text: str, utils: str = UTILS):
        folder = tmp_path / "tasks"
        folder.mkdir(exist_ok=True)
        (folder / "utils.py").write_text(utils)
        (folder / "one.yaml").write_text(text)
        manager = TaskManager(include_path=str(folder), include_defaults=False)
        return manager.load_task_or_group("one")["one"]

    return load


THREE_LINES = "class: !function utils.SFTKeyTask\ntask: one\ndataset: gsm8k\n"


def test_everything_follows_from_the_data_set(load_task):
    task = load_task(THREE_LINES + PLACE)
    assert task.VERSION == 1
    assert task.OUTPUT_TYPE == "generate_until"
    assert task.config.num_fewshot == 0
    assert task.config.generation_kwargs == {"until": [], "do_sample": False, "max_gen_toks": 1024}
    docs = task.test_docs()
    assert docs is task.test_docs()
    assert [task.doc_to_text(doc) for doc in docs] == ["0+1?", "1+1?"]
    assert [task.doc_to_target(doc) for doc in docs] == ["1", "2"]
    aggregation = {name: getattr(how, "__name__", how) for name, how in task.aggregation().items()}
    assert aggregation == dict.fromkeys(METRIC_NAMES, "mean") | {
        "judge_agreement": "agreement",
        "judge_kappa": "cohens_kappa",
        **dict.fromkeys(("judge_fitness_kappa", "judge_sensitivity", "judge_specificity"), "same_for_all"),
        **{name: name for name in ("acc_corrected", "acc_corrected_low", "acc_corrected_high")},
    }
    higher = task.higher_is_better()
    assert [name for name in higher if higher[name]] == [*METRIC_NAMES[:5], *METRIC_NAMES[-8:-2]]
    assert [name for name in higher if higher[name] is None] == ["judged", "judge_cached", *METRIC_NAMES[-2:]]
    filters = task.dump_config()["filter_list"]
    of_the_model = {"response_format": None, "opened": ""}
    (function,) = filters[0]["filter"]
    assert function == {
        "function": harness.Verdicts,
        "dataset": "gsm8k",
        "task": task.config.task,
        "expected": of_the_model,
    }
    # It goes into the results file.
    assert "process_results" in json.dumps(task.dump_config(), default=str)


METRIC_NAMES = (
    "acc fmt score thinking_valid acc_unfinished fmt_repeated fmt_no_thinking fmt_thinking_cut_off fmt_wrong_order "
    "fmt_empty_thinking "
    "fmt_no_answer fmt_answer_cut_off fmt_empty_answer fmt_text_outside no_answer undecided over_limit judged judge_cached "
    "judge_unresolved judge_agreement judge_kappa judge_fitness_kappa judge_sensitivity judge_specificity acc_corrected "
    "acc_corrected_low acc_corrected_high"
).split()


def test_plain_asks_for_the_untagged_form(load_task):
    task = load_task(THREE_LINES + "plain: true" + PLACE)
    (function,) = task.config.filter_list[0]["filter"]
    assert function == {"function": harness.Verdicts, "dataset": "gsm8k", "task": task.config.task, "plain": True}


def test_a_key_that_is_given_wins(load_task):
    task = load_task(THREE_LINES + "generation_kwargs: {max_gen_toks: 7}\nmetadata: {version: 3}" + PLACE)
    assert task.config.generation_kwargs == {"until": [], "do_sample": False, "max_gen_toks": 7}
    assert task.VERSION == 3
    own = load_task(
        THREE_LINES + "process_docs: !function utils.first" + PLACE,
        utils=UTILS + "def first(docs): return docs.select([1])\n",
    )
    assert [own.doc_to_text(doc) for doc in own.test_docs()] == ["1+1?"]


def test_metadata_of_the_caller_keeps_the_version(load_task):
    task = load_task(THREE_LINES + "metadata: {pretrained: model}" + PLACE)
    assert task.VERSION == 1
    assert task.config.metadata == {"version": 1, "pretrained": "model"}


def test_the_results_name_the_judge(load_task, monkeypatch):
    monkeypatch.setenv("SFTKEY_JUDGE_BASE_URL", "http://127.0.0.1:9/v1")
    monkeypatch.setenv("SFTKEY_JUDGE_API_KEY", "hidden")
    monkeypatch.setenv("SFTKEY_JUDGE_MODEL", "my-judge")
    logged = load_task(THREE_LINES + "metadata: {pretrained: model}" + PLACE).dump_config()["metadata"]
    assert logged["pretrained"] == "model"
    assert (logged["judge"]["judge"], logged["judge"]["temperature"], logged["judge"]["mode"]) == (
        "my-judge",
        0,
        "fallback",
    )
    assert logged["judge"]["prompt"] == PAPER_PROMPT.digest
    assert "hidden" not in json.dumps(logged)


@pytest.mark.parametrize("train", ["", "train: rows.jsonl, "])
def test_own_rows_are_evaluated_on_the_test_file(load_task, tmp_path, train):
    for file, answer in (("rows", 4), ("chat", 5)):
        question = {"role": "user", "content": f"{answer}-1?"}
        row = {"messages": [question, {"role": "assistant", "content": str(answer)}]}
        (tmp_path / f"{file}.jsonl").write_text(json.dumps(row) + "\n")
    place = PLACE.replace("test: rows.jsonl", f"{train}test: chat.jsonl")
    task = load_task(THREE_LINES.replace("gsm8k", "messages") + place)
    assert [task.doc_to_text(doc) for doc in task.test_docs()] == ["5-1?"]


def test_training_rows_are_evaluated_only_by_name(load_task, monkeypatch):
    monkeypatch.setattr(harness, "find_dataset", lambda name: replace(dataset(name), test_split=None))
    with pytest.raises(UserError, match="task one: data set gsm8k has no test split and holds no rows out") as error:
        load_task(THREE_LINES + PLACE)
    assert "\n" not in str(error.value)
    assert len(load_task(THREE_LINES + "test_split: test" + PLACE).test_docs()) == 2


def test_a_file_without_a_data_set_is_all_there_is(load_task):
    """What a copy of an earlier version's example says."""
    task = load_task(
        "class: !function utils.SFTKeyTask\ntask: one\noutput_type: generate_until\ntest_split: test\n"
        "process_docs: !function utils.chosen\ndoc_to_text: question\ndoc_to_target: answer\n"
        "generation_kwargs: {until: []}\nprocess_results: !function utils.metrics\n"
        "filter_list: [{name: none, filter: [{function: !function utils.Verdicts, dataset: gsm8k}]}]\n"
        "metric_list: [{metric: acc, aggregation: mean, higher_is_better: true}]" + PLACE,
        utils=UTILS + "def chosen(docs): return documents(docs.select([0]), 'gsm8k')\n",
    )
    assert [task.doc_to_text(doc) for doc in task.test_docs()] == ["0+1?"]
    assert list(task.aggregation()) == ["acc"]


@pytest.mark.parametrize(
    ("dataset", "message"),
    [
        ("columns", "task one: the rows of data set columns are not published; say where .* `dataset_path: json` and"),
        ("gsm9k", "unknown data set 'gsm9k'; did you mean 'gsm8k'"),
        ("no_such_lab.svamp", "'no_such_lab.svamp' can't be imported"),
    ],
)
def test_a_data_set_that_is_not_there_is_an_error_of_one_line(load_task, dataset, message):
    with pytest.raises(UserError, match=message) as error:
        load_task(THREE_LINES.replace("gsm8k", dataset))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", DATASETS)
def test_each_shipped_data_set_has_its_two_tasks(repository, name):
    manager = TaskManager(include_path=str(repository / "tasks"), include_defaults=False)
    for task, plain in ((f"sftkey_{name}", None), (f"sftkey_{name}_plain", True)):
        config = manager._get_config(task)
        assert config["dataset"] == name
        assert config.get("plain") is plain
        assert config.keys() <= {"class", "task", "dataset", "plain", "output_type", "dataset_name"}


def test_the_groups_are_the_papers_four(repository):
    manager = TaskManager(include_path=str(repository / "tasks"), include_defaults=False)
    for group, suffix in (("sftkey", ""), ("sftkey_plain", "_plain")):
        assert manager._get_config(group)["task"] == [f"sftkey_{name}{suffix}" for name in PAPER]


def test_score_stays_with_the_members_of_a_group_whatever_they_are_called(monkeypatch):
    def consolidate(results):
        """As lm-eval, which drops the metric of this name."""
        return [{task: {"acc,none": row.get("acc,none")} for task, row in results.items()}, {}, False]

    monkeypatch.setattr(lm_eval.evaluator, "consolidate_group_results", consolidate)
    harness._adapt_lm_eval()
    adapted = lm_eval.evaluator.consolidate_group_results
    harness._adapt_lm_eval()
    assert lm_eval.evaluator.consolidate_group_results is adapted
    mine = {"acc,none": 1.0, "score,none": 0.7, "score_stderr,none": 0.1, "thinking_valid,none": 1.0}
    (rows, *_) = adapted({"mine": mine, "theirs": {"acc,none": 1.0, "score,none": 0.1}})
    assert rows == {
        "mine": {"acc,none": 1.0, "score,none": 0.7, "score_stderr,none": 0.1},
        "theirs": {"acc,none": 1.0},
    }
    assert logging.getLogger("sftkey.evaluation").parent is harness.logger


def rendered(template: str):
    """A chat template as lm-eval hands it to a task."""

    def render(messages, add_generation_prompt=True):
        return template + "".join(message["content"] for message in messages)

    return render


@pytest.fixture
def requests_of(load_task, monkeypatch):
    """The prompts of a task, and its warnings on the way."""

    def build(yaml: str, **arguments):
        monkeypatch.setattr(training_prompt, "_warned", set())
        task = load_task(yaml + PLACE)
        task.build_all_requests(rank=0, world_size=1, **arguments)
        return [instance.args[0] for instance in task.instances]

    return build


SENT = "training_prompt: true\n"
ASKED = {"system_instruction": training_prompt.NAME}


@pytest.mark.parametrize(("setting", "given"), [(SENT, {}), ("", ASKED), (SENT, ASKED)])
def test_the_training_prompt_is_sent_where_it_is_asked_for(requests_of, caplog, setting, given):
    template = {"apply_chat_template": True, "chat_template": rendered("<s>")}
    first, second = requests_of(THREE_LINES + setting, **template, **given)
    assert first == f"<s>{system_prompt()}0+1?"
    assert second == f"<s>{system_prompt()}1+1?"
    # A base model has no chat template: the prompt stands before the question.
    first, _ = requests_of(THREE_LINES + setting, **given)
    assert first.startswith(system_prompt())
    assert first.endswith("0+1?")
    assert "training prompt" not in caplog.text
    assert "--apply_chat_template" not in caplog.text


def test_a_system_instruction_of_the_user_wins(requests_of):
    first, _ = requests_of(
        THREE_LINES + SENT, apply_chat_template=True, chat_template=rendered(""), system_instruction="Be brief. "
    )
    assert first == "Be brief. 0+1?"


@pytest.mark.parametrize("plain", ["plain: true\n", ""])
def test_a_task_says_when_the_model_may_not_know_of_the_tags(requests_of, caplog, plain):
    def said(**arguments):
        caplog.clear()
        requests_of(THREE_LINES + plain, **arguments)
        return caplog.text

    assert "is run without --apply_chat_template" in said()
    a_server = said(apply_chat_template=True, chat_template=lambda messages, **_: ("messages",))
    another_model = said(apply_chat_template=True, chat_template=rendered("<s>"))
    ours = said(apply_chat_template=True, chat_template=rendered(system_prompt()))
    assert ("can't be known here whether the model hears of the tags" in a_server) == (not plain)
    assert ("has no training prompt, so it never hears of the tags" in another_model) == (not plain)
    assert (training_prompt.HOW_TO_SEND in a_server) == (training_prompt.HOW_TO_SEND in another_model) == (not plain)
    assert "training prompt" not in ours


@pytest.mark.parametrize(("setting", "given"), [(SENT, {}), ("", ASKED)])
def test_the_untagged_form_has_no_prompt(requests_of, setting, given):
    template = {"apply_chat_template": True, "chat_template": rendered("<s>")}
    first, _ = requests_of(THREE_LINES + setting + "plain: true\n", **template, **given)
    assert first == "<s>0+1?"
