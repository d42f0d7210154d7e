"""Verdicts on labelled outputs: the rules beside math-verify, lighteval's and inspect_ai's graders, on the same outputs.

    python tests/benchmarks/bench_verdicts.py [--lighteval PYTHON --inspect-ai PYTHON] [--wrong] [--families] [--bulk]

A silent wrong verdict is a definite one that the label reverses; "can't tell" is what a judge is asked. PYTHON is the
interpreter of an environment that has the grader: `pip install lighteval`, and in another one, for they want different
versions of one library, `pip install inspect-ai latex2sympy2-extended==1.11.0`. math-verify is the one of this environment.

They don't know the tags, so they get the text of a closed Answer block; in maths between dollars where it has no
delimiters, and for inspect_ai's `choice()` after the `ANSWER:` that it wants.

`--bulk` asks the same of every real GSM8K and OpenBookQA row, with a right and a wrong answer in each of the phrasings below.
"""

from __future__ import annotations

import argparse
import json
import logging
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from sftkey.datasets.registry import dataset
from sftkey.evaluation.assess import assess
from sftkey.evaluation.verdicts import RuleVerdict
from sftkey.format.formats import THINKING_ANSWER

SHARED = Path(__file__).resolve().parents[3] / "shared" / "data"
CASES = SHARED / "answers" / "cases.jsonl"
Case = dict[str, Any]
Verdict = bool | None


def read_cases(path: Path) -> list[Case]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]


def row_of(case: Case) -> dict[str, Any]:
    """The case's question as a row of its data set."""
    question, reference = case.get("question") or "?", case["reference"]
    if case["data_set"] == "gsm8k":
        return {"question": question, "answer": f"#### {reference}"}
    if case["data_set"] == "openr1_math":
        return {"problem": question, "answer": reference}
    if case["data_set"] == "cot_collection":
        return {"source": question, "target": reference}
    choices = {"label": list(case["options"]), "text": list(case["options"].values())}
    return {"id": "1", "question_stem": question, "choices": choices, "answerKey": reference}


def by_rules(case: Case) -> Verdict:
    item = assess(case["output"], row_of(case), dataset(case["data_set"]), plain=False)
    return None if item.rule_verdict is RuleVerdict.CANT_TELL else item.rule_verdict is RuleVerdict.SAME


def by_grader(python: str, name: str, cases: Sequence[Case]) -> tuple[str, list[Verdict]]:
    """A grader's versions and verdicts, from a process of its own."""
    lines = []
    for case in cases:
        block, output = THINKING_ANSWER.find_answer_block(case["output"]), case["output"]
        if block is not None and block.closed:
            output = block.text
            if case.get("options") and name == "inspect_ai":
                output = f"ANSWER: {output}"
            elif case["data_set"] == "openr1_math" and "$" not in output and "\\boxed" not in output:
                output = f"${output}$"
        lines.append(json.dumps(case | {"output": output}))
    script = Path(__file__).with_name("graders.py")
    done = subprocess.run(
        [python, str(script), name], input="\n".join(lines), capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise SystemExit(f"{name} in {python}: {done.stderr.strip()[-1_000:]}")
    versions, *verdicts = map(json.loads, done.stdout.splitlines())
    return ", ".join(f"{package} {version}" for package, version in versions.items()), verdicts


def figures(cases: Sequence[Case], verdicts: Sequence[Verdict]) -> tuple[int, int, int]:
    """How many there are, silently wrong, and can't be told."""
    wrong = sum(
        verdict is not None and verdict is not (case["human"] == "same")
        for case, verdict in zip(cases, verdicts, strict=True)
    )
    return len(cases), wrong, sum(verdict is None for verdict in verdicts)


def show(by: str, group: str, cases: Sequence[Case], verdicts: Sequence[Verdict]) -> None:
    count, wrong, unknown = figures(cases, verdicts)
    group = repr(group)[1:-1].replace("|", "\\|")
    print(f"| {group} | {by} | {count:,} | {wrong:,} ({wrong / count:.1%}) | {unknown:,} ({unknown / count:.1%}) |")


def groups(cases: Sequence[Case], key: str) -> Iterator[tuple[str, list[int]]]:
    found: dict[str, list[int]] = defaultdict(list)
    for index, case in enumerate(cases):
        found[case[key]].append(index)
    yield from found.items()


def table(cases: Sequence[Case], by: dict[str, list[Verdict]], key: str) -> None:
    print("| outputs | by | number | silent wrong | can't tell |")
    print("|---|---|---:|---:|---:|")
    for group, indices in [*groups(cases, key), ("all", list(range(len(cases))))]:
        for name, verdicts in by.items():
            show(name, group, [cases[index] for index in indices], [verdicts[index] for index in indices])


NUMBER_PHRASES = (
    "<Thinking>Some steps.</Thinking><Answer>{}</Answer>", "<think>Or 3? No.</think>\nThe answer is {}.",
    "<thinking>Or 3.</thinking><answer>{}</answer>", "Some steps.\n#### {}", "So it is $\\boxed{{{}}}$.",
    "#### {}\n\nQuestion: Tim has 5.\nAnswer: 5\n#### 5", "ANSWER: {}", "**Answer:** {}", "✅ Final Answer: **{}**",
    "Therefore there are {} in all.", "The answer is {}. Let me know if you want 3 more examples.",
    "First I get \\boxed{{7}}. That misses a case; corrected, it is \\boxed{{{}}}.", "The answer is not 7, but {}.",
    "The answer is {}, not 7.", "The answer is 7. Wait, actually the answer is {}.", "The final answer is {} rather than 7.",
    "<|channel|>analysis<|message|>7?<|end|><|start|>assistant<|channel|>final<|message|>The answer is {}.<|return|>",
)  # fmt: skip
OPTION_PHRASES = (
    "<Thinking>Some steps.</Thinking><Answer>{letter}</Answer>", "The answer is {letter} because it fits.",
    "<Thinking>Some steps.</Thinking><Answer>{letter}. {text}</Answer>", "The answer is {letter}, not {other}.",
    "The answer is {letter} and not {other}.", "The answer is ({letter}) rather than ({other}).",
    "The answer is {letter} since it fits", "I think the answer is {letter}, although {other} is tempting.",
    "We can rule out ({other}). So {letter} it is.", "{letter}\n\nExplanation: it fits; ({other}) does not.",
    "My answer is {other}... wait, actually {letter}.", "The answer is {other}? No, {letter}.", "ANSWER: <{letter}>",
    "The answer isn't {other}. It's {letter}.", "（{letter}）", "Option {other}: no. Option {letter}: yes.",
    "{other} is wrong; {letter}", "ANSWER: $\\mathbf{{{letter}}}$", "{letter} is correct", "Hence $\\boxed{{{letter}}}$.",
    "<think>{other}?</think>\n{letter}", "Therefore, the correct option is {letter}) {text}.", "The answer must be {letter}.",
    "<answer>{letter}</answer>", "It is {text}, not {other_text}.", "I would go with {letter}.", "Answer: {text} ({letter})",
)  # fmt: skip


def bulk(data: Path) -> Iterator[Case]:
    """Each real row of the two test splits in every phrasing, right and wrong."""
    for line in (data / "gsm8k" / "test.jsonl").read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        reference = row["answer"].rpartition("####")[2].strip()
        for phrase in NUMBER_PHRASES:
            for right in (True, False):
                number = reference if right else str(int(reference.replace(",", "")) + 11)
                yield {
                    "data_set": "gsm8k", "question": row["question"], "reference": reference, "about": phrase,
                    "output": phrase.format(number), "human": "same" if right else "different",
                }  # fmt: skip
    for path in sorted((data / "openbookqa").glob("*test*.jsonl")):
        for line in path.read_text(encoding="utf-8").splitlines():
            row = json.loads(line)
            options = dict(zip(row["choices"]["label"], row["choices"]["text"], strict=True))
            letters = list(options)
            following = letters[(letters.index(row["answerKey"]) + 1) % len(letters)]
            for phrase in OPTION_PHRASES:
                for letter, other in ((row["answerKey"], following), (following, row["answerKey"])):
                    output = phrase.format(letter=letter, other=other, text=options[letter], other_text=options[other])
                    yield {
                        "data_set": "openbookqa", "question": row["question_stem"], "reference": row["answerKey"],
                        "options": options, "about": phrase, "output": output,
                        "human": "same" if letter == row["answerKey"] else "different",
                    }  # fmt: skip


def list_wrong(cases: Iterable[Case], verdicts: Iterable[Verdict]) -> None:
    for index, (case, verdict) in enumerate(zip(cases, verdicts, strict=True)):
        kind = "can't tell" if verdict is None else "" if verdict is (case["human"] == "same") else "WRONG"
        if kind:
            shown = {key: case[key] for key in ("data_set", "about", "human", "reference")}
            print(f"{kind:10} {index:4} {shown} {case['output'][-200:]!r}")


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--cases", type=Path, default=CASES, help="labelled outputs as JSON lines")
    arguments.add_argument("--lighteval", metavar="PYTHON", help="interpreter of an environment with lighteval")
    arguments.add_argument("--inspect-ai", metavar="PYTHON", help="interpreter of an environment with inspect_ai")
    arguments.add_argument("--families", action="store_true", help="figures of each family, too")
    arguments.add_argument("--wrong", action="store_true", help="list what is wrong or can't be told")
    arguments.add_argument("--bulk", action="store_true", help="the real rows in every phrasing instead of the cases")
    arguments.add_argument("--every", type=int, default=1, help="with --bulk, only every n-th output")
    options = arguments.parse_args()
    logging.disable(logging.WARNING)
    cases = list(bulk(SHARED))[:: options.every] if options.bulk else read_cases(options.cases)
    start = time.perf_counter()
    by = {"sftkey": [by_rules(case) for case in cases]}
    print(f"{len(cases):,} outputs in {time.perf_counter() - start:.1f} s\n")
    if options.wrong:
        list_wrong(cases, by["sftkey"])
        print()
    graders = {"math-verify": sys.executable, "lighteval": options.lighteval, "inspect_ai": options.inspect_ai}
    for name, python in graders.items():
        if python is None or (options.bulk and name == "math-verify"):
            continue
        versions, verdicts = by_grader(python, name, cases)
        print(f"{name}: {versions}")
        by[name] = verdicts
    print()
    table(cases, by, "data_set")
    if options.families or options.bulk:
        print()
        table(cases, {"sftkey": by["sftkey"]}, "about")


if __name__ == "__main__":
    main()
