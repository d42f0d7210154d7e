"""``sftkey chat`` with a tiny finished stage, and with replies that a model might give."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from sftkey.cli.main import sftkey
from sftkey.evaluation import generation
from sftkey.evaluation.generation import Completion, complete, load_model
from sftkey.training.tokenizers import encode
from support.documented_json import follows_the_documentation
from transformers import AutoTokenizer

OLD = Path(__file__).parents[1] / "stages" / "written_by_9c54c77" / "old" / "stage1"


def chat(*options: str, typed: str | None = None) -> Result:
    return CliRunner().invoke(sftkey, ["chat", str(OLD), *options], input=typed)


@pytest.fixture
def replies(monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[str]]:
    """Lets a model give replies; returns the prompts that it was sent."""

    def give(*texts: str, finished: bool = True) -> list[str]:
        prompts: list[str] = []
        left = iter(texts)

        def stream(model: Any, tokenizer: Any, prompt: list[int], *, on_text: Callable[[str], None], **_: Any) -> Any:
            prompts.append(tokenizer.decode(prompt))
            text = next(left)
            for length in range(1, len(text) + 1):
                on_text(text[:length])
            return Completion(text, len(text), finished)

        monkeypatch.setattr(generation, "stream", stream)
        monkeypatch.setattr(generation, "load_model", lambda *_: None)
        return prompts

    return give


def test_it_answers_as_it_is_evaluated() -> None:
    result = chat("--prompt", "What is 2+3?", "--max-new-tokens", "12", "--json")
    assert result.exit_code == 0, result.output
    said = json.loads(result.stdout)
    follows_the_documentation("chat --prompt", said)
    tokenizer = AutoTokenizer.from_pretrained(OLD)
    question = [{"role": "user", "content": "What is 2+3?"}]
    prompt = tokenizer.apply_chat_template(question, tokenize=False, add_generation_prompt=True)
    model = load_model(OLD, len(tokenizer))
    ids = encode(tokenizer, [str(prompt)])
    (scored,) = complete(model, tokenizer, ids, max_new_tokens=12, batch_size=1)
    assert (said["text"], said["tokens"], said["finished"]) == tuple(scored)


REPLY = "<Thinking>2 and 3 \x1b[31mis 5</Thinking><Answer>5</Answer>"


def test_two_turns(replies: Callable[..., list[str]]) -> None:
    prompts = replies(REPLY, "no tags")
    result = chat("--show-prompt", "--system", "Be short.", typed="What is 2+3?\n\nAnd now?\n")
    assert result.exit_code == 0, result.output
    assert result.stdout == "[thinking]\n2 and 3 \\x1b[31mis 5\n\n[answer]\n5\nno tags\n"
    assert result.stderr.count("note: ") == 1
    assert "note: the reply is not in the format: no thinking" in result.stderr
    start = "<|im_start|>system\nBe short.<|im_end|>\n<|im_start|>user\nWhat is 2+3?<|im_end|>\n<|im_start|>assistant\n"
    rest = f"{REPLY}<|im_end|>\n<|im_start|>user\nAnd now?<|im_end|>\n<|im_start|>assistant\n"
    assert prompts == [start, start + rest]
    assert result.stderr.startswith(start)


def test_thinking_is_dim_where_there_is_colour(replies: Callable[..., list[str]]) -> None:
    replies("<Thinking>ab</Thinking><Answer>5</Answer>")
    result = CliRunner().invoke(sftkey, ["chat", str(OLD), "--color", "--prompt", "q"], color=True)
    assert result.stdout == "\x1b[2ma\x1b[0m\x1b[2mb\x1b[0m\n\n5\n"


def test_a_reply_that_was_cut_off(replies: Callable[..., list[str]]) -> None:
    replies("<Thinking>ab", finished=False)
    result = chat("--prompt", "q")
    assert (result.stdout, result.stderr) == ("[thinking]\nab\n", "note: the reply was ended after 12 tokens\n")


def test_what_can_not_be_talked_to(tmp_path: Path) -> None:
    result = CliRunner().invoke(sftkey, ["chat", str(tmp_path)])
    assert result.exit_code == 1
    assert "hasn't finished" in result.stderr
    assert chat("--json").exit_code == 2
