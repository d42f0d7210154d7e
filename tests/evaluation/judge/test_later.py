"""Judging later gives what judging at once gives."""

from __future__ import annotations

import errno
import hashlib
import json
import math
import os
import shutil
import statistics
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from sftkey.cli.judge import judge_command
from sftkey.evaluation.judge import later as judging
from sftkey.evaluation.judge.decide import judged
from sftkey.evaluation.judge.later import NotJudgeable, TaskPlan, plan
from sftkey.evaluation.judge.settings import Fitness, JudgeMode, JudgeSettings
from sftkey.evaluation.lm_eval_tasks import update_groups
from sftkey.evaluation.verdicts import Item, Record, RuleVerdict, scores
from sftkey.format.response_format import FormatFailure
from support.loopback_judge import Fault, LoopbackServer, read_judge_prompt

DATE = "2025-11-02T10-11-12.131415"
NEW_KEY = "sftkey_judged_later"
rejudge = partial(judging.rejudge, update_groups=update_groups)


def same_number(prompt: str) -> str:
    """A judge to whom "18 dollars" and "18" are the same."""
    _, reference, prediction = read_judge_prompt(prompt)
    return "yes" if reference.split()[0] == prediction.split()[0] else "No."


def make_items(count: int, offset: int = 0) -> list[Item]:
    """Items of all kinds: settled by the rules, rightly and wrongly, open, without an answer, in and out of format."""
    verdicts = [RuleVerdict.SAME, RuleVerdict.DIFFERENT, RuleVerdict.CANT_TELL, RuleVerdict.CANT_TELL]
    items = []
    for n in range(offset, offset + count):
        verdict = verdicts[n % 4]
        extracted = {0: f"{n}", 1: f"{n + 1}", 2: f"{n} dollars", 3: f"about {n}"}[n % 4]
        items.append(
            Item(
                question=f"How many {{apples}} in basket {n // 8}?",
                reference=f"{n}",
                extracted=None if n % 17 == 5 else extracted,
                extraction="Answer block" if n % 3 else "last number",
                rule_verdict=verdict if n % 17 != 5 else RuleVerdict.DIFFERENT,
                rule_detail="made up",
                over_limit=n % 11 == 0,
                format_failure=FormatFailure.NO_ANSWER if n % 5 == 0 else None,
                thinking_valid=n % 7 != 0,
            )
        )
    return items


def sample_line(number: int, record: Record) -> dict[str, Any]:
    """A line as lm-eval 0.4.11 logs it: its own fields, then what the task returned."""
    metrics = scores(record)
    return {
        "doc_id": number,
        "doc": {"question": record["question"], "answer": "\ud800 <<1+1=2>> ünïcode"[1:]},
        "target": record["reference"],
        "arguments": {"gen_args_0": {"arg_0": "prompt", "arg_1": {"until": []}}},
        "resps": [["<Thinking>…</Thinking>"]],
        "filtered_resps": [record["extracted"] or ""],
        "filter": "none",
        "metrics": list(metrics),
        "doc_hash": "d",
        "prompt_hash": "p",
        "target_hash": "t",
        **record,
        **metrics,
    }


def results_row(records: list[Record]) -> dict[str, Any]:
    """Means and standard errors, computed here by other means than the package's."""
    row: dict[str, Any] = {"alias": "the alias"}
    columns = [scores(record) for record in records]
    for name in columns[0]:
        values = [column[name] for column in columns]
        if name in ("judge_agreement", "judge_kappa"):
            pairs = [pair for pair in values if pair is not None]
            n = len(pairs)
            agreement = sum(a == b for a, b in pairs) / n
            chance = sum(a for a, _ in pairs) * sum(b for _, b in pairs) / n**2
            chance += sum(1 - a for a, _ in pairs) * sum(1 - b for _, b in pairs) / n**2
            row[f"{name},none"] = agreement if name == "judge_agreement" else (agreement - chance) / (1 - chance)
            row[f"{name}_stderr,none"] = "N/A"
        else:
            row[f"{name},none"] = statistics.fmean(values)
            row[f"{name}_stderr,none"] = statistics.stdev(values) / math.sqrt(len(values))
    return row


def write_run(folder: Path, tasks: dict[str, list[Record]], *, weight_by_size: bool | None = None) -> Path:
    """An evaluation as lm-eval leaves it behind, optionally with a group of all tasks."""
    folder.mkdir(parents=True)
    results = {task: results_row(records) for task, records in tasks.items()}
    content: dict[str, Any] = {"results": results}
    sizes = {task: len(records) for task, records in tasks.items()}
    if weight_by_size is not None:
        group: dict[str, Any] = {"alias": "group"}
        for name in ("acc", "fmt", "score"):
            weights = sizes if weight_by_size else dict.fromkeys(sizes, 1)
            total = sum(results[task][f"{name},none"] * weights[task] for task in tasks)
            group[f"{name},none"] = total / sum(weights.values())
            pooled = sum((n - 1) * n * results[task][f"{name}_stderr,none"] ** 2 for task, n in sizes.items())
            pooled /= sum(sizes.values()) - len(sizes)
            group[f"{name}_stderr,none"] = math.sqrt(pooled / sum(sizes.values()))
        results["everything"] = group
        content["groups"] = {"everything": dict(group)}
        content["group_subtasks"] = {"everything": list(tasks)}
    content |= {
        "configs": {task: {"task": task} for task in tasks},
        "n-samples": {task: {"original": n, "effective": n} for task, n in sizes.items()},
        "config": {"model": "hf", "bootstrap_iters": 100000},
        "model_name": "ünïcode",
    }
    path = folder / f"results_{DATE}.json"
    path.write_text(json.dumps(content, indent=2, ensure_ascii=False), encoding="utf-8")
    for task, records in tasks.items():
        lines = [json.dumps(sample_line(n, record), ensure_ascii=False) + "\n" for n, record in enumerate(records)]
        (folder / f"samples_{task}_{DATE}.jsonl").write_text("".join(lines), encoding="utf-8")
    return path


def close(found: object, expected: object) -> None:
    """Equal, numbers up to rounding."""
    if isinstance(expected, dict):
        assert isinstance(found, dict)
        assert list(found) == list(expected)
        for key, value in expected.items():
            close(found[key], value)
    elif isinstance(expected, float):
        assert found == pytest.approx(expected, rel=1e-12, abs=1e-12)
    else:
        assert found == expected


@pytest.fixture
def settings(tmp_path: Path):
    def make(server: LoopbackServer, mode: str = "fallback", cache: str = "cache", **changes: Any) -> JudgeSettings:
        values = {"mode": JudgeMode(mode), "cache_dir": tmp_path / cache, "max_retries": 0, "fitness": Fitness.OFF}
        return JudgeSettings(server.base_url, "judge-model", **(values | changes))

    return make


TASKS = {"sftkey_gsm8k": make_items(90), "sftkey_openbookqa_plain": make_items(37, offset=1000)}


@pytest.mark.parametrize("weight_by_size", [None, False, True])
@pytest.mark.parametrize("mode", ["fallback", "always"])
def test_later_is_what_at_once_would_have_been(
    tmp_path: Path, settings, mode: str, weight_by_size: bool | None
) -> None:
    with LoopbackServer(same_number) as server:
        at_once = {
            task: judged(items, settings(server, mode, "cache of another machine")) for task, items in TASKS.items()
        }
        rules_only = {task: judged(items, None) for task, items in TASKS.items()}
        expected = write_run(tmp_path / "at once", at_once, weight_by_size=weight_by_size)
        later = write_run(tmp_path / "later" / "model", rules_only, weight_by_size=weight_by_size)
        originals = {path.name: path.read_bytes() for path in later.parent.iterdir()}
        report = rejudge(tmp_path / "later", settings(server, mode))

    content = json.loads(later.read_text())
    assert content.pop(NEW_KEY)["judge"] == "judge-model"
    close(content, json.loads(expected.read_text()))
    for task in TASKS:
        name = f"samples_{task}_{DATE}.jsonl"
        assert (later.parent / name).read_bytes() == (expected.parent / name).read_bytes()
    kept = {path.name.removesuffix(".before-judge"): path.read_bytes() for path in later.parent.glob("*.before-judge")}
    assert kept == originals
    assert len(list(later.parent.iterdir())) == 2 * len(originals)
    for done, (task, records) in zip(report, at_once.items(), strict=True):
        assert (done.results, done.task, done.items) == (later, task, len(records))
        assert done.before["acc"] == pytest.approx(sum(r["verdict"] == "same" for r in rules_only[task]) / len(records))
        assert done.after["acc"] == pytest.approx(sum(r["verdict"] == "same" for r in records) / len(records))
        assert done.before["acc"] < done.after["acc"]


def test_judging_again_changes_nothing_but_the_source(tmp_path: Path, settings) -> None:
    with LoopbackServer(same_number) as server:
        path = write_run(tmp_path / "run", {"sftkey_gsm8k": judged(TASKS["sftkey_gsm8k"], None)})
        originals = {file.name: file.read_bytes() for file in path.parent.iterdir()}
        (first,) = rejudge(path.parent, settings(server))
        asked = len(server.requests)
        (second,) = rejudge(path.parent, settings(server))
        assert len(server.requests) == asked
    assert first.after == second.after == second.before
    assert first.sources == {"judge": second.sources["cache"]}
    for name, content in originals.items():
        assert (path.parent / f"{name}.before-judge").read_bytes() == content


def test_from_always_to_fallback_leaves_no_agreement_behind(tmp_path: Path, settings) -> None:
    items = TASKS["sftkey_gsm8k"]
    with LoopbackServer(same_number) as server:
        path = write_run(tmp_path / "run", {"sftkey_gsm8k": judged(items, settings(server, "always"))})
        expected = write_run(tmp_path / "expected", {"sftkey_gsm8k": judged(items, settings(server, "fallback"))})
        rejudge(path.parent, settings(server, "fallback"))
    content = json.loads(path.read_text())
    del content[NEW_KEY]
    close(content, json.loads(expected.read_text()))
    name = f"samples_sftkey_gsm8k_{DATE}.jsonl"
    assert (path.parent / name).read_bytes() == (expected.parent / name).read_bytes()


def test_unresolved_items_keep_the_rules_verdict_and_are_asked_again(tmp_path: Path, settings) -> None:
    failing = [True]

    def faults(prompt: str, attempt: int) -> Fault | None:
        return Fault.SERVER_ERROR if failing[0] and "basket 1?" in prompt else None

    with LoopbackServer(same_number, faults=faults) as server:
        path = write_run(tmp_path / "run", {"sftkey_gsm8k": judged(TASKS["sftkey_gsm8k"], None)})
        (first,) = rejudge(path.parent, settings(server))
        first_row = json.loads(path.read_text())["results"]["sftkey_gsm8k"]
        failing[0] = False
        (second,) = rejudge(path.parent, settings(server))
    # Items 8 to 15, of which 10, 11, 14 and 15 are open and have an answer.
    assert first.sources["unresolved"] == 4
    assert first_row["judge_unresolved,none"] == pytest.approx(4 / 90)
    assert first_row["undecided,none"] == pytest.approx(4 / 90)
    assert second.sources == {"cache": first.sources["judge"], "judge": 4}


def test_a_dead_judge_changes_no_file(tmp_path: Path, settings) -> None:
    path = write_run(tmp_path / "run", {"sftkey_gsm8k": judged(TASKS["sftkey_gsm8k"], None)})
    before = {file.name: file.read_bytes() for file in path.parent.iterdir()}
    with (
        LoopbackServer(same_number, model="another") as server,
        pytest.raises(NotJudgeable, match=r"no verdict on any of \d+ items, nothing was written: status 404"),
    ):
        rejudge(tmp_path, settings(server))
    assert {file.name: file.read_bytes() for file in path.parent.iterdir()} == before


def test_a_plan_counts_and_touches_nothing(tmp_path: Path, settings) -> None:
    items = [*make_items(40), *make_items(40)]
    path = write_run(tmp_path / "run", {"sftkey_gsm8k": judged(items, None)})
    before = {file.name: file.read_bytes() for file in path.parent.iterdir()}
    open_items = [n for n in range(40) if n % 4 >= 2 and n % 17 != 5]
    answered = [n for n in range(40) if n % 17 != 5]
    with LoopbackServer(same_number) as server:
        used = settings(server)
        expected = TaskPlan(path, "sftkey_gsm8k", 80, 2 * len(open_items), len(open_items), 0)
        assert plan(tmp_path, JudgeMode.FALLBACK) == plan(tmp_path, JudgeMode.FALLBACK, used) == [expected]
        assert not used.cache_dir.exists()
        judged(make_items(12), used)
        asked = len(server.requests)
        (after,) = plan(tmp_path, JudgeMode.FALLBACK, used)
        assert after.cached == asked == len([n for n in open_items if n < 12])
        (always,) = plan(tmp_path, JudgeMode.ALWAYS, used)
        assert (always.needed, always.distinct) == (2 * len(answered), len(answered))
        assert len(server.requests) == asked
    assert {file.name: file.read_bytes() for file in path.parent.iterdir()} == before


def test_other_peoples_tasks_stay_as_they_are(tmp_path: Path, settings) -> None:
    path = write_run(tmp_path / "run", {"sftkey_gsm8k": judged(TASKS["sftkey_gsm8k"], None)})
    content = json.loads(path.read_text())
    content["results"]["arc"] = {"alias": "arc", "acc,none": 0.5, "acc_stderr,none": 0.1}
    path.write_text(json.dumps(content))
    foreign = path.parent / f"samples_arc_{DATE}.jsonl"
    foreign.write_text('{"doc_id": 0, "acc": 1.0, "filter": "none"}\n')
    with LoopbackServer(same_number) as server:
        (done,) = rejudge(tmp_path, settings(server))
    assert done.task == "sftkey_gsm8k"
    assert foreign.read_text() == '{"doc_id": 0, "acc": 1.0, "filter": "none"}\n'
    assert json.loads(path.read_text())["results"]["arc"] == content["results"]["arc"]


def _cut_off_line(path: Path, samples: Path) -> None:
    samples.write_text(samples.read_text()[:-30])


def _missing_lines(path: Path, samples: Path) -> None:
    samples.write_text("".join(samples.read_text().splitlines(keepends=True)[:51]))


def _missing_field(path: Path, samples: Path) -> None:
    lines = samples.read_text().splitlines()
    samples.write_text("\n".join([*lines[:4], lines[4].replace('"extraction"', '"extractor"'), *lines[5:]]))


def _strange_value(path: Path, samples: Path) -> None:
    samples.write_text(samples.read_text().replace('"rule_verdict": "different"', '"rule_verdict": "perhaps"', 1))


def _no_results(path: Path, samples: Path) -> None:
    path.unlink()


def _results_of_another_run(path: Path, samples: Path) -> None:
    path.write_text('{"results": {}}')


def _no_json(path: Path, samples: Path) -> None:
    path.write_text("[" * 100_000)


def _no_samples(path: Path, samples: Path) -> None:
    samples.unlink()


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (_cut_off_line, "line 90: not JSON"),
        (_missing_lines, "don't belong together, or some are missing"),
        (_missing_field, "line 5: KeyError 'extraction'"),
        (_strange_value, "line 2: ValueError 'perhaps'"),
        (_no_results, "0 results files beside it"),
        (_results_of_another_run, "no results of sftkey_gsm8k"),
        (_no_json, "is not JSON"),
        (_no_samples, "run lm_eval with --log_samples"),
    ],
)
def test_what_can_not_be_judged_says_where_and_why(tmp_path: Path, settings, damage, message: str) -> None:
    path = write_run(tmp_path / "run", {"sftkey_gsm8k": judged(TASKS["sftkey_gsm8k"], None)})
    damage(path, path.parent / f"samples_sftkey_gsm8k_{DATE}.jsonl")
    before = {file.name: file.read_bytes() for file in path.parent.iterdir()}
    with LoopbackServer(same_number) as server:
        with pytest.raises(NotJudgeable, match=message):
            rejudge(tmp_path, settings(server))
        assert server.requests == []
    assert {file.name: file.read_bytes() for file in path.parent.iterdir()} == before


def test_an_interruption_while_writing_is_mended_by_judging_again(tmp_path: Path, settings, monkeypatch) -> None:
    with LoopbackServer(same_number) as server:
        at_once = {task: judged(items, settings(server)) for task, items in TASKS.items()}
        path = write_run(tmp_path / "run", {task: judged(items, None) for task, items in TASKS.items()})
        expected = write_run(tmp_path / "expected", at_once)
        replace, replaced = os.replace, []

        def interrupted_replace(source: Path, target: Path) -> None:
            if str(target).endswith(".jsonl"):
                if replaced:
                    raise KeyboardInterrupt
                replaced.append(target)
            replace(source, target)

        with monkeypatch.context() as patch:
            patch.setattr(
                os, "replace", lambda s, t: replace(s, t) if str(t).endswith("judge") else interrupted_replace(s, t)
            )
            with pytest.raises(KeyboardInterrupt):
                rejudge(path.parent, settings(server))
        assert not list(path.parent.glob(".*"))
        rejudge(path.parent, settings(server))
    content, wanted = json.loads(path.read_text()), json.loads(expected.read_text())
    for task in TASKS:
        for metric in ("acc", "fmt", "score", "acc_stderr", "judged", "judge_unresolved"):
            close(content["results"][task][f"{metric},none"], wanted["results"][task][f"{metric},none"])


@pytest.mark.parametrize("written", [0, 1, 5])
def test_a_full_disk_leaves_the_originals_and_nothing_else(tmp_path: Path, settings, monkeypatch, written: int) -> None:
    path = write_run(tmp_path / "run", {task: judged(items, None) for task, items in TASKS.items()})
    before = {file.name: file.read_bytes() for file in path.parent.iterdir()}
    sync, synced = os.fsync, []

    def sync_unless_full(descriptor: int) -> None:
        if len(synced) == written:
            raise OSError(errno.ENOSPC, "No space left on device")
        synced.append(descriptor)
        sync(descriptor)

    with LoopbackServer(same_number) as server, monkeypatch.context() as patch:
        patch.setattr(os, "fsync", sync_unless_full)
        with pytest.raises(OSError, match="No space left"):
            rejudge(path.parent, settings(server))
    assert {file.name: file.read_bytes() for file in path.parent.iterdir()} == before


def test_lone_surrogates_stay_in_the_log_and_not_in_the_verdicts(tmp_path: Path, settings) -> None:
    path = write_run(tmp_path / "run", {"sftkey_gsm8k": judged(TASKS["sftkey_gsm8k"], None)})
    samples = path.parent / f"samples_sftkey_gsm8k_{DATE}.jsonl"
    samples.write_text(samples.read_text().replace("</Thinking>", "\\ud83d</Thinking>"))
    logged = samples.read_text().splitlines()
    assert all("…\\ud83d</Thinking>" in line for line in logged)
    with LoopbackServer(lambda prompt: "Yes \ud83d") as server:
        (done,) = rejudge(path.parent, settings(server))
        (again,) = rejudge(path.parent, settings(server))
    assert done.sources["judge"] == again.sources["cache"] > 0
    for line, original in zip(samples.read_text().splitlines(), logged, strict=True):
        assert "…\\ud83d</Thinking>" in line
        sample, before = json.loads(line), json.loads(original)
        assert {key: sample[key] for key in ("doc", "resps")} == {key: before[key] for key in ("doc", "resps")}
        assert sample["judge_detail"] == ("Yes ?" if sample["judge_source"] else before["judge_detail"])


@pytest.mark.parametrize("sizes", ["left out", None, {"sftkey_gsm8k": {"original": 90, "effective": 90}}])
def test_a_group_needs_no_sizes_in_the_file(tmp_path: Path, settings, sizes: object) -> None:
    with LoopbackServer(same_number) as server:
        at_once = {task: judged(items, settings(server)) for task, items in TASKS.items()}
        expected = write_run(tmp_path / "expected", at_once, weight_by_size=True)
        path = write_run(
            tmp_path / "run", {task: judged(items, None) for task, items in TASKS.items()}, weight_by_size=True
        )
        content = json.loads(path.read_text())
        content |= {"n-samples": sizes}
        if sizes == "left out":
            del content["n-samples"]
        path.write_text(json.dumps(content))
        rejudge(path.parent, settings(server))
    close(json.loads(path.read_text())["groups"], json.loads(expected.read_text())["groups"])


def test_a_group_without_known_tasks_stays_as_it_is(tmp_path: Path, settings) -> None:
    path = write_run(tmp_path / "run", {"sftkey_gsm8k": judged(TASKS["sftkey_gsm8k"], None)}, weight_by_size=True)
    content = json.loads(path.read_text())
    content["group_subtasks"] = None
    path.write_text(json.dumps(content))
    with LoopbackServer(same_number) as server:
        (done,) = rejudge(path.parent, settings(server))
    assert done.before["acc"] < done.after["acc"]
    assert json.loads(path.read_text())["groups"] == content["groups"]


# With the real lm_eval

GROUP = """
group: sftkey_two
task: [sftkey_gsm8k, sftkey_openbookqa]
aggregate_metric_list:
  - {metric: acc, aggregation: mean, weight_by_size: false, filter_list: none}
  - {metric: fmt, aggregation: mean, weight_by_size: false, filter_list: none}
  - {metric: score, aggregation: mean, weight_by_size: false, filter_list: none}
metadata: {version: 1}
"""
CARD = """---
configs:
- config_name: main
  data_files:
  - {split: train, path: train.jsonl}
  - {split: test, path: test.jsonl}
---
"""


def pick(prompt: str, *choices: str) -> str:
    """One of the choices, always the same one for the same prompt."""
    return choices[hashlib.sha256(prompt.encode()).digest()[0] % len(choices)]


def model(prompt: str) -> str:
    answer = pick(prompt, "18", "B", "some number or other", "as I said before", "unfinished")
    if answer == "unfinished":
        return "<Thinking>t"
    return f"<Thinking>t</Thinking><Answer>{answer}</Answer>" if answer != "B" else "The answer is B"


def evaluate(folder: Path, output: str, base_url: str, **environ: str) -> Path:
    """Run `lm_eval` in `folder` and return the results file."""
    command = [sys.executable, "-m", "lm_eval", "--tasks", "sftkey_two", "--include_path", "tasks"]
    command += ["--model", "local-chat-completions", "--apply_chat_template", "--log_samples", "--output_path", output]
    command += ["--model_args", f"model=m,base_url={base_url}/chat/completions,num_concurrent=4"]
    settings = {"HF_HUB_OFFLINE": "1", "HF_DATASETS_CACHE": str(folder / "datasets"), "OPENAI_API_KEY": "none"}
    settings["SFTKEY_JUDGE_FITNESS"] = "off"  # its judge knows its items only
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("SFTKEY_")}
    done = subprocess.run(
        command, cwd=folder, env={**inherited, **settings, **environ}, capture_output=True, text=True, timeout=600
    )
    assert done.returncode == 0, done.stderr[-5000:]
    (results,) = (folder / output).rglob("results_*.json")
    return results


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["fallback", "always"])
def test_later_is_as_at_once_in_the_real_harness(tmp_path: Path, shared_dir: Path, mode: str) -> None:
    for name, published in {"gsm8k": "openai/gsm8k", "openbookqa": "allenai/openbookqa"}.items():
        (tmp_path / published).mkdir(parents=True)
        (tmp_path / published / "README.md").write_text(CARD)
        for split, count in {"train": 1, "test": 30 if name == "gsm8k" else 20}.items():
            rows = (shared_dir / "data" / name / f"{split}.jsonl").read_text(encoding="utf-8").splitlines(keepends=True)
            (tmp_path / published / f"{split}.jsonl").write_text("".join(rows[:count]), encoding="utf-8")
    shutil.copytree(Path(__file__).resolve().parents[3] / "tasks", tmp_path / "tasks")
    (tmp_path / "tasks" / "sftkey_two.yaml").write_text(GROUP)
    with LoopbackServer(model) as served, LoopbackServer(lambda prompt: pick(prompt, "yes", "No.")) as judging:
        environ = {
            "SFTKEY_JUDGE_BASE_URL": judging.base_url,
            "SFTKEY_JUDGE_MODE": mode,
            "SFTKEY_JUDGE_CACHE": str(tmp_path / "cache of judging at once"),
        }
        expected = evaluate(tmp_path, "at once", served.base_url, **environ)
        later = evaluate(tmp_path, "later", served.base_url)
        done = run_command([str(tmp_path / "later")], **(environ | {"SFTKEY_JUDGE_CACHE": str(tmp_path / "cache")}))
    assert done.exit_code == 0, done.output
    found, wanted = json.loads(later.read_text()), json.loads(expected.read_text())
    assert found["results"] == wanted["results"]
    assert found["groups"] == wanted["groups"]
    assert wanted["n-samples"]["sftkey_gsm8k"]["effective"] == 30
    assert 0 < wanted["results"]["sftkey_gsm8k"]["judged,none"] < 1
    for task in ("sftkey_gsm8k", "sftkey_openbookqa"):
        (found_samples,) = later.parent.glob(f"samples_{task}_*.jsonl")
        (wanted_samples,) = expected.parent.glob(f"samples_{task}_*.jsonl")
        assert found_samples.read_bytes() == wanted_samples.read_bytes()


# The command


def run_command(arguments: list[str], **environ: str) -> Any:
    variables = (
        {name: "" for name in os.environ if name.startswith("SFTKEY_")} | {"SFTKEY_JUDGE_FITNESS": "off"} | environ
    )
    return CliRunner().invoke(judge_command, arguments, env=variables)


def test_the_command(tmp_path: Path) -> None:
    path = write_run(tmp_path / "run", {"sftkey_gsm8k": judged(TASKS["sftkey_gsm8k"], None)})
    with LoopbackServer(same_number) as server:
        environ = {"SFTKEY_JUDGE_BASE_URL": server.base_url, "SFTKEY_JUDGE_CACHE": str(tmp_path / "cache")}
        dry = run_command([str(tmp_path), "--dry-run", "--mode", "always"], **environ)
        assert dry.exit_code == 0, dry.output
        assert server.requests == []
        assert dry.output.splitlines()[1].split() == [path.name, "sftkey_gsm8k", "90", "85", "85", "0", "85"]
        done = run_command([str(tmp_path)], **environ)
    assert done.exit_code == 0, done.output
    row = json.loads(path.read_text())["results"]["sftkey_gsm8k"]
    assert f"{row['acc,none']:.4f}" in done.stdout.splitlines()[-1]


def test_the_command_without_a_judge(tmp_path: Path) -> None:
    write_run(tmp_path / "run", {"sftkey_gsm8k": judged(TASKS["sftkey_gsm8k"], None)})
    missing = run_command([str(tmp_path)])
    assert missing.exit_code == 1
    assert "SFTKEY_JUDGE_BASE_URL" in missing.output
    bad = run_command([str(tmp_path)], SFTKEY_JUDGE_BASE_URL="http://h/v1", SFTKEY_JUDGE_CONCURRENCY="x")
    assert bad.exit_code == 1
    assert "SFTKEY_JUDGE_CONCURRENCY" in bad.output
    assert run_command([str(tmp_path), "--dry-run"]).exit_code == 0
    empty = tmp_path / "empty"
    empty.mkdir()
    assert "--log_samples" in run_command([str(empty), "--dry-run"]).output


def test_the_command_imports_neither_torch_nor_axolotl() -> None:
    code = """
import sys, sftkey.cli.judge
print([name for name in ("torch", "axolotl", "lm_eval") if name in sys.modules])
"""
    output = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert output == "[]\n"
