"""The parts of a diagnosis against computations by hand; its prediction is tested in tests/e2e/test_diagnose.py."""

from __future__ import annotations

from typing import Any

import pytest
import sftkey.evaluation.diagnosis
import torch
from demo.tiny_model import make_tokenizer
from sftkey.cli.diagnosis_text import report
from sftkey.evaluation.diagnosis import answer_loss, before, diagnose, gradient_shares, own_thinking
from sftkey.evaluation.generation import Completion
from sftkey.evaluation.headroom import (
    MEANINGS,
    Outcome,
    Verdict,
)
from sftkey.format import templates
from sftkey.format.example import Example
from sftkey.format.methods import METHODS
from sftkey.format.segments import Segment
from sftkey.format.untagged import UntaggedForm
from sftkey.training.tokenization import ExampleTokenizer
from support.small_models import small_model

EXAMPLES = [
    Example("Which box?", "The lamp costs 31. The rope costs 40.", "the red box"),
    Example("Which?", "The lamp costs 31.", "the blue box"),
    Example("Which box is it, then?", "The rope costs 40. So it is the red box.", "the red box"),
]


@pytest.fixture(scope="module")
def tokenize() -> ExampleTokenizer:
    texts = [text for example in EXAMPLES for text in (example.question, example.thinking, example.answer)]
    tokenizer = make_tokenizer(texts * 20, vocab_size=320)
    tokenizer.chat_template = templates.chat_template(templates.TAGGED, "Think.")
    return ExampleTokenizer(tokenizer, METHODS["sft-tag"], UntaggedForm("\n"))


@pytest.fixture
def model(tokenize: ExampleTokenizer) -> Any:
    return small_model(len(tokenize.tokenizer), hidden_size=32, intermediate_size=64, num_hidden_layers=2, head_dim=16)


@pytest.mark.parametrize(
    ("output", "expected"),
    [
        ("<Thinking>a b</Thinking><Answer>c</Answer>", "a b"),
        ("<Thinking>a b</Thinking>c", "a b"),
        ("<Thinking>a b</Thinking><Answer>c", "a b"),
        ("<Thinking>a b", None),
        ("<Thinking> </Thinking><Answer>c</Answer>", None),
        ("<Thinking>a<Answer>b</Thinking>", None),
        ("well <Thinking>a</Thinking>", None),
        ("<Thinking>a<|im_end|></Thinking>", None),
        ("", None),
    ],
)
def test_own_thinking(output: str, expected: str | None, tokenize: ExampleTokenizer) -> None:
    assert own_thinking(output, tokenize) == expected


def test_answer_loss_from_full_logits(model: Any, tokenize: ExampleTokenizer) -> None:
    examples = tokenize(EXAMPLES)
    loss, correct, tokens = 0.0, 0, 0
    with torch.no_grad():
        for example in examples:
            logits = model(torch.tensor([example.input_ids])).logits[0].double().log_softmax(-1)
            for index, segment in enumerate(example.segments):
                if segment == Segment.ANSWER:
                    loss -= float(logits[index - 1, example.input_ids[index]])
                    correct += int(logits[index - 1].argmax()) == example.input_ids[index]
                    tokens += 1
    for batch_size in (1, 2, 8):
        found = answer_loss(model, examples, batch_size)
        assert found.tokens == tokens
        assert found.rows == 3
        assert found.loss == pytest.approx(loss / tokens, rel=1e-5)
        assert found.accuracy == pytest.approx(correct / tokens)


def test_gradient_shares_from_full_logits(model: Any, tokenize: ExampleTokenizer) -> None:
    examples = tokenize(EXAMPLES)
    groups = {"thinking": {Segment.THINKING}, "answer": {Segment.ANSWER}}
    groups["format"] = set(Segment) - {Segment.PROMPT, Segment.THINKING, Segment.ANSWER}
    norms = {}
    for name, group in groups.items():
        model.zero_grad()
        total = torch.zeros(())
        for example in examples:
            logits = model(torch.tensor([example.input_ids])).logits[0].log_softmax(-1)
            for index, segment in enumerate(example.segments):
                if segment in group:
                    total = total - logits[index - 1, example.input_ids[index]]
        total.backward()
        norms[name] = sum(float(p.grad.square().sum()) for p in model.parameters()) ** 0.5
    for batch_size in (1, 8):
        found = gradient_shares(model, examples, batch_size)
        assert sum(found.values()) == pytest.approx(1)
        for name, norm in norms.items():
            assert found[name] == pytest.approx(norm / sum(norms.values()), rel=1e-3)
    assert all(p.grad is None for p in model.parameters())


def test_reference_thinking_takes_the_place_of_the_models_own(
    model: Any, tokenize: ExampleTokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    decode = tokenize.tokenizer.decode
    asked: list[list[str]] = []
    # The first thinks wrong and answers accordingly; the second thinks right and answers wrong; the third runs on.
    scripts = [
        [
            "<Thinking>The lamp costs 13. The rope costs 40.</Thinking><Answer>the blue box</Answer>",
            "<Thinking>The lamp costs 31.</Thinking><Answer>the red box</Answer>",
            "<Thinking>The rope the rope the rope",
        ],
        ["<Answer>the red box</Answer>", "<Answer>the red box</Answer>", "<Answer>the red box</Answer>"],
    ]

    def scripted(model: Any, tokenizer: Any, prompts: list[list[int]], **settings: Any) -> list[Completion]:
        asked.append([decode(prompt) for prompt in prompts])
        return [Completion(text, 9, text.endswith(">")) for text in scripts[len(asked) - 1]]

    monkeypatch.setattr(sftkey.evaluation.diagnosis, "complete", scripted)
    found = diagnose(
        model,
        tokenize,
        EXAMPLES,
        lambda index, output: output.endswith(f"<Answer>{EXAMPLES[index].answer}</Answer>"),
        training_examples=EXAMPLES[:2],
    )
    for prompt, forced, example in zip(*asked, EXAMPLES, strict=True):
        assert prompt == tokenize.prompt(example.question)
        assert forced == f"{prompt}<Thinking>{example.thinking}</Thinking>"
    assert found.outcomes == {
        Outcome.RIGHT.value: 0,
        Outcome.AFTER_CORRECT_THINKING.value: 1,
        Outcome.BECAUSE_OF_THINKING.value: 1,
        Outcome.UNCLEAR.value: 0,
        Outcome.NO_THINKING.value: 1,
    }
    assert (found.accuracy, found.accuracy_given_reference) == (0, pytest.approx(2 / 3))
    assert (found.format_rate, found.unfinished) == (pytest.approx(2 / 3), pytest.approx(1 / 3))
    assert (found.copied, found.in_last_sentence, found.own_copied) == (pytest.approx(1 / 3), pytest.approx(1 / 3), 0)
    own = [
        Example(EXAMPLES[0].question, "The lamp costs 13. The rope costs 40.", EXAMPLES[0].answer),
        Example(EXAMPLES[1].question, "The lamp costs 31.", EXAMPLES[1].answer),
    ]
    assert found.given_own == answer_loss(model, tokenize(own), 16)
    assert found.given_reference == answer_loss(model, tokenize(EXAMPLES), 16)
    assert found.on_training_rows == answer_loss(model, tokenize(EXAMPLES[:2]), 16)
    assert found.over_limit == 0
    assert found.shares_of_wrong == {
        Outcome.AFTER_CORRECT_THINKING.value: pytest.approx(1 / 3),
        Outcome.BECAUSE_OF_THINKING.value: pytest.approx(1 / 3),
        Outcome.UNCLEAR.value: 0,
        Outcome.NO_THINKING.value: pytest.approx(1 / 3),
    }
    assert found.headroom == pytest.approx(1 / 3)
    assert found.verdict is Verdict.CANT_TELL
    text = report(found)
    assert "wrong because of the thinking" in text
    assert text.splitlines()[-1].startswith("Headroom for Stage 2: can't tell, 33.3 points of Acc")


def test_diagnose_for_real(model: Any, tokenize: ExampleTokenizer) -> None:
    # An untrained model: nothing is right, and nothing is changed.
    weights = {name: value.clone() for name, value in model.state_dict().items()}
    found = diagnose(model, tokenize, EXAMPLES, lambda index, output: False, max_new_tokens=8, batch_size=2)
    assert found.rows == sum(found.outcomes.values()) == 3
    assert found.accuracy == 0
    assert found.on_training_rows is None
    # Every reference response has more than 8 tokens.
    assert found.over_limit == 1
    assert set(found.as_dict()) == set(MEANINGS)
    assert all(torch.equal(value, weights[name]) for name, value in model.state_dict().items())
    assert model.training
    with pytest.raises(ValueError, match="held-out examples"):
        diagnose(model, tokenize, [], lambda index, output: False)
    key = ExampleTokenizer(tokenize.tokenizer, METHODS["key-tag"], tokenize.untagged)
    with pytest.raises(ValueError, match="checkpoint of sft-tag, not of key-tag"):
        diagnose(model, key, EXAMPLES, lambda index, output: False)


def test_before(tokenize: ExampleTokenizer) -> None:
    (example,) = tokenize(EXAMPLES[:1])
    prompt = tokenize.tokenizer.decode(before(example, {Segment.THINKING_OPEN}))
    assert prompt == tokenize.prompt(EXAMPLES[0].question)
