"""The real ``lm_eval`` command over real GSM8K rows: a loopback server is the model, another one the judge.

The model's outputs are made row by row from a fixed list of cases whose figures are known beforehand, so that acc, fmt
and score can be checked to the last item.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("lm_eval")

from sftkey.datasets.gsm8k import question, reference
from sftkey.format.templates import system_prompt
from support.loopback_judge import TRANSIENT, UNREADABLE, LoopbackServer, random_faults, read_judge_prompt
from support.small_models import small_model

KEY = "sk-a-secret-of-this-test"


@dataclass(frozen=True)
class Case:
    """What an output is like and what it is worth.

    Attributes:
        output: The output for a right answer (a number as text).
        acc: By the rules alone.
        failure: Name of the format failure's metric, ``None`` where the format is right.
        judge: What the judge is to say, ``None`` where it isn't asked in mode ``fallback``.
        thinks: Whether it has a closed, non-empty thinking.
        extraction: The rule that finds the answer.
    """

    output: Callable[[int], str]
    acc: int
    failure: str | None
    judge: bool | None = None
    thinks: bool = True
    extraction: str = "answer block"


WELL = "<Thinking>We add it up, step by step.</Thinking>"
CASES = (
    Case(lambda n: f"{WELL}<Answer>{n}</Answer>", 1, None),
    Case(lambda n: f"{WELL}\n<Answer>{n:,}.00</Answer>\n", 1, None),
    Case(
        lambda n: f"{WELL}<Answer>The answer is {n} in all.</Answer>", 1, None, extraction="answer block, the answer is"
    ),
    Case(lambda n: f"{WELL}<Answer>{n + 1}</Answer>", 0, None),
    Case(lambda n: f"We add it up.\n#### {n}", 1, "fmt_no_thinking", thinks=False, extraction="####"),
    Case(lambda n: f"<Answer>{n}</Answer>", 1, "fmt_no_thinking", thinks=False),
    Case(
        lambda n: "<Thinking>We add it up, and then",
        0,
        "fmt_thinking_cut_off",
        thinks=False,
        extraction="nothing found",
    ),
    Case(lambda n: f"<Thinking></Thinking><Answer>{n}</Answer>", 1, "fmt_empty_thinking", thinks=False),
    Case(lambda n: f"{WELL}<Answer>{n}", 1, "fmt_answer_cut_off", extraction="unclosed answer block"),
    Case(lambda n: f"{WELL}{n}", 1, "fmt_no_answer", extraction="last number"),
    Case(lambda n: f"{WELL}<Answer></Answer>{n}", 1, "fmt_empty_answer", extraction="last number"),
    Case(lambda n: f"{WELL}<Answer>{n}</Answer> I hope this helps!", 1, "fmt_text_outside"),
    Case(lambda n: f"{WELL}<Answer>{n + 2}</Answer><Answer>{n}</Answer>", 1, "fmt_repeated"),
    Case(lambda n: f"<Answer>{n}</Answer>{WELL}", 1, "fmt_wrong_order"),
    Case(lambda n: "", 0, "fmt_no_thinking", thinks=False, extraction="nothing found"),
    Case(lambda n: f"{WELL}<Answer>as many as {n}, or so they say, or {n + 5}</Answer>", 0, None, judge=True),
    Case(lambda n: f"{WELL}<Answer>as many as {n + 1}, or so they say, or {n + 5}</Answer>", 0, None, judge=False),
    Case(lambda n: f"{WELL}<Answer>9**9**9\x00{'{' * 2_000}</Answer>", 0, None, judge=False),
)


def judge_reply(prompt: str) -> str:
    _, expected, prediction = read_judge_prompt(prompt)
    # References such as 70,000 have a separator that the outputs above lack.
    return "Yes." if f"as many as {expected.replace(',', '')}," in prediction else "No"


@pytest.fixture(scope="module")
def rows(gsm8k_rows: dict[str, list[dict[str, Any]]]) -> list[dict[str, Any]]:
    return gsm8k_rows["test"]


@pytest.fixture(scope="module")
def case_of(rows: list[dict[str, Any]]) -> dict[str, tuple[Case, int]]:
    """Question -> its case and its right answer."""
    known = {}
    for index, row in enumerate(rows):
        known[question(row)] = CASES[index % len(CASES)], int(reference(row).replace(",", ""))
    assert len(known) == len(rows) == 1_319
    return known


@pytest.fixture
def workplace(tmp_path: Path, rows: list[dict[str, Any]]) -> Path:
    """A working directory with ``openai/gsm8k`` as a local folder, which is how `load_dataset` finds it offline."""
    write_dataset(tmp_path / "openai" / "gsm8k", "main", "test", rows)
    return tmp_path


def write_dataset(folder: Path, config: str, split: str, rows: Sequence[dict[str, Any]]) -> None:
    folder.mkdir(parents=True)
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    (folder / "README.md").write_text(
        f"---\nconfigs:\n- config_name: {config}\n  data_files:\n  - split: {split}\n    path: rows.jsonl\n---\n"
    )


def lm_eval(workplace: Path, repository: Path, *arguments: str, judge: dict[str, str] | None = None) -> str:
    """Run the command in `workplace` with the checkout's tasks; returns all it printed."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("SFTKEY_JUDGE_")}
    environment |= {
        "HF_HUB_OFFLINE": "1",
        "HF_HOME": str(workplace / "hf"),
        "OPENAI_API_KEY": "none",
        "OMP_NUM_THREADS": "1",
        "SFTKEY_JUDGE_CACHE": str(workplace / "verdicts"),
        "SFTKEY_JUDGE_FITNESS": "off",  # their judges know the outputs of this file only
    }
    environment |= {f"SFTKEY_JUDGE_{name}": value for name, value in (judge or {}).items()}
    command = [
        str(Path(sys.executable).with_name("lm_eval")),
        "run",
        "--include_path",
        str(repository / "tasks"),
        *arguments,
    ]
    done = subprocess.run(
        command,
        cwd=workplace,
        env=environment,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=600,
    )
    assert done.returncode == 0, done.stdout[-8_000:]
    return done.stdout


def evaluate(
    workplace: Path,
    repository: Path,
    model: LoopbackServer,
    *arguments: str,
    task: str = "sftkey_gsm8k",
    judge: dict[str, str] | None = None,
    output: str = "out",
) -> tuple[dict[str, float], list[dict[str, Any]], str]:
    """Evaluate the loopback model; returns the task's results, its samples by doc_id, and what was printed."""
    printed = lm_eval(
        workplace,
        repository,
        "--model=local-chat-completions",
        f"--model_args=model=loopback,base_url={model.base_url}/chat/completions,num_concurrent=16",
        f"--tasks={task}",
        "--apply_chat_template",
        "--log_samples",
        f"--output_path={output}",
        *arguments,
        judge=judge,
    )
    results = json.loads(next((workplace / output).rglob("results_*.json")).read_text(encoding="utf-8"))["results"]
    samples = next((workplace / output).rglob(f"samples_{task}_*.jsonl")).read_text(encoding="utf-8")
    return results[task], sorted(map(json.loads, samples.splitlines()), key=lambda sample: sample["doc_id"]), printed


def model_server(case_of: dict[str, tuple[Case, int]]) -> LoopbackServer:
    def reply(prompt: str) -> str:
        case, answer = case_of[prompt]
        return case.output(answer)

    return LoopbackServer(reply)


def check_what_no_judge_changes(results, samples, case_of) -> None:
    assert len(samples) == len({sample["doc_id"] for sample in samples})
    failures: Counter[str | None] = Counter()
    thinking = 0
    for sample in samples:
        case, _ = case_of[sample["question"]]
        failures[case.failure] += 1
        thinking += case.thinks
        assert sample["extraction"] == case.extraction, sample
        assert sample["fmt"] == (case.failure is None), sample
        assert sample["thinking_valid"] == case.thinks, sample
        assert sample["score"] == pytest.approx(0.7 * sample["acc"] + 0.3 * sample["fmt"])
        if case.failure:
            assert sample[case.failure] == 1, sample
    total = len(samples)
    assert results["fmt,none"] == pytest.approx(failures.pop(None) / total, abs=1e-12)
    assert results["thinking_valid,none"] == pytest.approx(thinking / total, abs=1e-12)
    for name, count in failures.items():
        assert results[f"{name},none"] == pytest.approx(count / total, abs=1e-12)
    assert results["score,none"] == pytest.approx(0.7 * results["acc,none"] + 0.3 * results["fmt,none"], abs=1e-12)
    assert all(f"{metric}_stderr,none" in results for metric in ("acc", "fmt", "score", "thinking_valid", *failures))


def test_rules_only(workplace, repository, case_of):
    with model_server(case_of) as model:
        results, samples, printed = evaluate(workplace, repository, model)
        assert sorted(model.prompts()) == sorted(case_of)
        # Greedy, and no stop string that would cut the closing tag off.
        assert {json.dumps(request.body["stop"]) for request in model.requests} == {"[]"}
        assert {request.body["temperature"] for request in model.requests} == {0}
    assert len(samples) == 1_319
    check_what_no_judge_changes(results, samples, case_of)
    right = sum(case.acc for case, _ in case_of.values())
    assert results["acc,none"] == pytest.approx(right / 1_319, abs=1e-12)
    for sample in samples:
        case, _ = case_of[sample["question"]]
        assert sample["acc"] == case.acc, sample
        assert sample["decided_by"] == "rule"
        assert sample["undecided"] == (case.judge is not None), sample
    assert results["undecided,none"] == pytest.approx(
        sum(case.judge is not None for case, _ in case_of.values()) / 1_319
    )
    assert results["judged,none"] == 0
    assert not any(name.startswith(("judge_cached", "judge_unresolved", "judge_kappa")) for name in results)
    assert "rules only, no judge" in printed
    assert "thinking is opened and never closed" in printed
    assert "without --apply_chat_template" not in printed


@pytest.mark.slow
def test_a_model_behind_a_server_hears_of_the_tags(workplace, repository, case_of):
    send = ("--limit=3", "--system_instruction", "training_prompt")
    with model_server(case_of) as model:
        _, _, printed = evaluate(workplace, repository, model, "--limit=3", output="bare")
        bare = [request.body["messages"] for request in model.requests]
        assert "can't be known here whether the model hears of the tags" in printed
        model.requests.clear()
        _, _, printed = evaluate(workplace, repository, model, *send, output="sent")
        sent = [request.body["messages"] for request in model.requests]
    assert "hears of the tags" not in printed
    assert [[message["role"] for message in messages] for messages in bare] == [["user"]] * 3
    assert [[message["role"] for message in messages] for messages in sent] == [["system", "user"]] * 3
    assert {messages[0]["content"] for messages in sent} == {system_prompt()}
    assert sorted(messages[-1]["content"] for messages in sent) == sorted(messages[-1]["content"] for messages in bare)


@pytest.mark.slow
def test_a_judge_that_fails_in_every_way(workplace, repository, case_of):
    to_judge = {asked: case.judge for asked, (case, _) in case_of.items() if case.judge is not None}
    faults = random_faults(seed=3, rate=0.5, kinds=(*TRANSIENT, *UNREADABLE))
    judge = {"MODEL": "judge", "API_KEY": KEY}
    with model_server(case_of) as model, LoopbackServer(judge_reply, faults=faults, hang=0.5, model="judge") as server:
        results, samples, printed = evaluate(workplace, repository, model, judge=judge | {"BASE_URL": server.base_url})
        assert all(request.authorization == f"Bearer {KEY}" for request in server.requests)
        assert {request.body["temperature"] for request in server.requests} == {0}
    assert len(samples) == 1_319
    check_what_no_judge_changes(results, samples, case_of)
    sources: Counter[str | None] = Counter()
    right = 0
    for sample in samples:
        case, _ = case_of[sample["question"]]
        sources[sample["judge_source"]] += 1
        assert (sample["judge_source"] is not None) == (sample["question"] in to_judge), sample
        if sample["judge_source"] == "judge":
            assert sample["acc"] == case.judge, sample
            assert sample["decided_by"] == "judge"
        else:
            # An unresolved item is the rules' again, and never a no of the judge's.
            assert sample["acc"] == case.acc, sample
            assert sample["decided_by"] == "rule"
            assert sample["undecided"] == (sample["judge_source"] == "unresolved"), sample
        right += sample["acc"]
    # Every item is accounted for.
    assert sources[None] == 1_319 - len(to_judge)
    assert sources["judge"] + sources["unresolved"] == len(to_judge)
    assert sources["judge"]
    assert sources["unresolved"]
    assert results["acc,none"] == pytest.approx(right / 1_319, abs=1e-12)
    assert results["judged,none"] == pytest.approx(sources["judge"] / 1_319, abs=1e-12)
    assert results["judge_unresolved,none"] == pytest.approx(sources["unresolved"] / 1_319, abs=1e-12)
    assert results["judge_cached,none"] == 0
    assert all(f"{name}_stderr,none" in results for name in ("judged", "judge_cached", "judge_unresolved"))

    # A second run asks about nothing that has a verdict, and about all the rest.
    with model_server(case_of) as model, LoopbackServer(judge_reply, model="judge") as server:
        again, second, _ = evaluate(
            workplace, repository, model, judge=judge | {"BASE_URL": server.base_url}, output="again"
        )
        asked = Counter(server.prompts())
    unresolved = {sample["question"] for sample in samples if sample["judge_source"] == "unresolved"}
    assert {read_judge_prompt(prompt)[0] for prompt in asked} == unresolved
    assert set(asked.values()) == {1}
    assert again["judge_cached,none"] == pytest.approx(sources["judge"] / 1_319, abs=1e-12)
    assert again["judge_unresolved,none"] == again["undecided,none"] == 0
    truth = sum(case.acc if case.judge is None else case.judge for case, _ in case_of.values())
    assert again["acc,none"] == pytest.approx(truth / 1_319, abs=1e-12)
    assert {sample["decided_by"] for sample in second if sample["question"] in to_judge} == {"cache", "judge"}

    for file in [
        *workplace.glob("out/**/*.json*"),
        *workplace.glob("again/**/*.json*"),
        *workplace.glob("verdicts/**/*"),
    ]:
        assert not file.is_file() or KEY.encode() not in file.read_bytes(), file
    assert KEY not in printed


@pytest.mark.slow
def test_a_judge_of_every_item(workplace, repository, case_of):
    def disagrees_now_and_then(prompt: str) -> str:
        _, expected, prediction = read_judge_prompt(prompt)
        if prediction in (expected.replace(",", ""), f"${expected}.00"):
            return "no" if expected.endswith("5") else "yes"
        return judge_reply(prompt)

    with model_server(case_of) as model, LoopbackServer(disagrees_now_and_then) as server:
        judge = {"BASE_URL": server.base_url, "MODE": "always"}
        results, samples, _ = evaluate(workplace, repository, model, "--limit=400", judge=judge)
    assert len(samples) == 400
    check_what_no_judge_changes(results, samples, case_of)
    counts: Counter[tuple[bool, bool]] = Counter()
    for sample in samples:
        case, _ = case_of[sample["question"]]
        assert (sample["judge_source"] is None) == (case.extraction == "nothing found"), sample
        if sample["judge_source"] is not None:
            assert sample["acc"] == sample["judge_same"]
            if case.judge is None:
                counts[bool(case.acc), sample["judge_same"]] += 1
    both, rule_only, judge_only, neither = (
        counts[key] for key in ((True, True), (True, False), (False, True), (False, False))
    )
    total = counts.total()
    assert rule_only
    assert both
    observed = (both + neither) / total
    expected = ((both + rule_only) * (both + judge_only) + (judge_only + neither) * (rule_only + neither)) / total**2
    assert results["judge_agreement,none"] == pytest.approx(observed)
    assert results["judge_kappa,none"] == pytest.approx((observed - expected) / (1 - expected))


def test_a_mistake_in_the_judges_settings_shows_before_anything_is_generated(workplace, repository, case_of):
    with model_server(case_of) as model:
        with pytest.raises(AssertionError, match="SFTKEY_JUDGE_MODE is 'sometimes'"):
            evaluate(workplace, repository, model, judge={"BASE_URL": model.base_url, "MODE": "sometimes"})
        assert model.requests == []


def random_model(folder: Path, shared_dir: Path) -> Any:
    """A tiny Qwen3 with random weights, the real tokenizer and our chat template; returns the tokenizer."""
    from sftkey.format import templates
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(shared_dir / "tokenizers" / "qwen3")
    tokenizer.chat_template = templates.chat_template(templates.TAGGED)
    tokenizer.save_pretrained(folder)
    small_model(len(tokenizer), tie_word_embeddings=True).save_pretrained(folder)
    return tokenizer


HF = (
    "--model=hf",
    "--model_args=pretrained=model,dtype=float32",
    "--device=cpu",
    "--batch_size=4",
    "--gen_kwargs=max_gen_toks=4",
)


@pytest.mark.slow
def test_the_prompt_is_the_training_prompt(workplace, repository, shared_dir, rows):
    from sftkey.datasets.gsm8k import GSM8K
    from sftkey.format.methods import METHODS
    from sftkey.format.segments import Segment
    from sftkey.training.tokenization import ExampleTokenizer

    tokenizer = random_model(workplace / "model", shared_dir)
    # The tasks are zero-shot whatever is asked for: examples before the question were in no training prompt.
    arguments = ("--tasks=sftkey_gsm8k", "--apply_chat_template", "--limit=5", "--log_samples", "--output_path=out")
    arguments += ("--num_fewshot=2",)
    lm_eval(workplace, repository, *HF, *arguments)
    logged = next((workplace / "out").rglob("samples_*.jsonl")).read_text(encoding="utf-8").splitlines()
    trained = ExampleTokenizer(tokenizer, METHODS["sft-tag"], GSM8K.untagged)(
        [GSM8K.to_example(row) for row in rows[:5]]
    )
    assert len(logged) == 5
    for line, example in zip(logged, trained, strict=True):
        prompt = json.loads(line)["arguments"]["gen_args_0"]["arg_0"]
        segments = zip(example.input_ids, example.segments, strict=True)
        assert tokenizer(prompt)["input_ids"] == [token for token, segment in segments if segment == Segment.PROMPT]


@pytest.mark.slow
def test_a_group_of_all_data_sets_with_a_model_on_the_cpu(workplace, repository, shared_dir):
    """Random weights behind ``--model hf``: no score to speak of, but every part runs, and lm-eval's table is complete."""
    lines = (shared_dir / "data" / "openbookqa" / "test.jsonl").read_text(encoding="utf-8").splitlines()
    write_dataset(workplace / "allenai" / "openbookqa", "main", "test", [json.loads(line) for line in lines])
    maths = [{"problem": f"Compute {n} + {n}.", "answer": str(2 * n)} for n in range(3_000)]
    write_dataset(workplace / "open-r1" / "OpenR1-Math-220k", "default", "train", maths)
    cot = [{"source": f"Word {n}?", "target": f"w{n}", "rationale": "so"} for n in range(20_000)]
    write_dataset(workplace / "kaist-ai" / "CoT-Collection", "en", "train", cot)
    random_model(workplace / "model", shared_dir)
    printed = lm_eval(
        workplace,
        repository,
        *HF,
        "--tasks=sftkey,sftkey_plain",
        "--limit=3",
        "--output_path=out",
    )
    content = json.loads(next((workplace / "out").rglob("results_*.json")).read_text(encoding="utf-8"))
    names = ("gsm8k", "openr1_math", "openbookqa", "cot_collection")
    for suffix in ("", "_plain"):
        tasks = [f"sftkey_{name}{suffix}" for name in names]
        assert sorted(content["group_subtasks"][f"sftkey{suffix}"]) == sorted(tasks)
        for metric in ("acc", "fmt", "score"):
            # lm-eval drops a task's score in a group; it has to be there like the others.
            mean = sum(content["results"][task][f"{metric},none"] for task in tasks) / 4
            assert content["results"][f"sftkey{suffix}"][f"{metric},none"] == pytest.approx(mean)
            assert all(f"{metric}_stderr,none" in content["results"][task] for task in tasks)
    assert printed.count("without --apply_chat_template") == 1
