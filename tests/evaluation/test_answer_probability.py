"""The probability of an answer against the chain rule, one token at a time; its file may be a stranger's."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from demo.tiny_model import make_tokenizer
from sftkey.evaluation.answer_probability import Answer, answer_logprobs
from sftkey.evaluation.probabilities import identity, probabilities_file, read_probabilities, write_probabilities
from sftkey.util.sources import Ledger
from support.small_models import small_model

PROMPT = "<|im_start|>user\na lamp costs 31<|im_end|>\n<|im_start|>assistant\n"


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return make_tokenizer(["the red box and the blue box " * 20, "a lamp costs 31"], vocab_size=300)


@pytest.fixture(scope="module")
def model(tokenizer: Any) -> Any:
    return small_model(len(tokenizer), seed=3, initializer_range=0.4, max_position_embeddings=200).eval()


def slowly(model: Any, tokenizer: Any, before: str, answer: str, after: str) -> tuple[float, int]:
    """The same, one prefix at a time."""
    encoded = tokenizer(before + answer + after, add_special_tokens=False, return_offsets_mapping=True)
    ids, total, count = encoded["input_ids"], 0.0, 0
    for i, (left, right) in enumerate(encoded["offset_mapping"]):
        if left < len(before) + len(answer) and right > len(before):
            with torch.no_grad():
                logits = model(torch.tensor([ids[:i]])).logits[0, -1]
            total += float(torch.log_softmax(logits.float(), -1)[ids[i]])
            count += 1
    return total, count


@pytest.mark.parametrize("answer", ["31", "the red box", "7 lamps", "x"])
def test_equals_the_product_over_its_tokens(model: Any, tokenizer: Any, answer: str) -> None:
    before = f"<Thinking>a {answer} lamp</Thinking><Answer>\n"
    asked = Answer(PROMPT, f"{before}{answer}\n</Answer>", answer)
    (found,) = answer_logprobs(model, tokenizer, [asked])
    assert found is not None
    expected = slowly(model, tokenizer, PROMPT + before, answer, "\n</Answer>")
    assert found == (pytest.approx(expected[0], abs=1e-4), expected[1])


def test_what_can_t_be_scored(model: Any, tokenizer: Any) -> None:
    asked = [
        Answer(PROMPT, "<Answer> </Answer>", " "),
        Answer(PROMPT, "<Answer>31</Answer>", "32"),
        Answer(PROMPT, "box " * 500 + "<Answer>31</Answer>", "31"),
        Answer(PROMPT, "<Answer>31</Answer>", "31"),
    ]
    assert [found is None for found in answer_logprobs(model, tokenizer, asked)] == [True, True, True, False]


def test_the_file_is_read_as_it_was_written(tmp_path: Path) -> None:
    samples = tmp_path / "samples_sftkey_gsm8k_2026.jsonl"
    path = write_probabilities(samples, [("1", "out", -0.5, 2), ("2", "", 0.0, 1)])
    assert path == probabilities_file(samples) == tmp_path / "answer_probabilities_sftkey_gsm8k_2026.jsonl"
    ledger = Ledger()
    found = read_probabilities(samples, ledger)
    assert found == {identity("1", "out"): pytest.approx(math.exp(-0.5)), identity("2", ""): 1.0}
    assert identity("1", "another output") not in found
    assert ledger.notes == []
    assert [file.kind for file in ledger.files] == ["answer probabilities"]


@pytest.mark.parametrize(
    "line",
    [
        {"item": "a", "logprob": 0.1},
        {"item": "a", "logprob": float("nan")},
        {"item": "a", "logprob": "-1"},
        {"item": ["a"], "logprob": -1},
        {"logprob": -1},
        {"item": "a"},
        [1],
        "x",
    ],
    ids=repr,
)
def test_a_bad_line_is_counted_and_left_out(tmp_path: Path, line: Any) -> None:
    samples = tmp_path / "samples_t_1.jsonl"
    good = {"item": "good", "logprob": -1.0, "tokens": 3}
    probabilities_file(samples).write_text(f"{json.dumps(line)}\n{json.dumps(good)}\n" + "{broken\n")
    ledger = Ledger()
    assert list(read_probabilities(samples, ledger)) == ["good"]
    (note,) = ledger.notes
    assert note.endswith("lines that can't be used: 2.")


def test_without_a_file_there_is_nothing(tmp_path: Path) -> None:
    assert read_probabilities(tmp_path / "samples_t_1.jsonl", Ledger()) == {}
