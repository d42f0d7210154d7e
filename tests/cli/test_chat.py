"""``sftkey chat`` with a tiny finished stage, and with replies that a model might give."""

from __future__ import annotations

import json
import re
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from sftkey.cli.chat import _asked
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


@pytest.mark.parametrize(
    ("options", "typed", "said"),
    [
        (
            ["--prompt", "word " * 2_000],
            None,
            r"the prompt has [\d,]+ tokens; the model reads 512, with what it writes",
        ),
        ([], b"caf\xe9\n", "a question is not utf-8 text"),
        ([], b"", ""),
    ],
    ids=["long", "not UTF-8", "nothing"],
)
def test_a_question_that_can_not_be_asked(options: list[str], typed: bytes | None, said: str) -> None:
    result = CliRunner().invoke(sftkey, ["chat", str(OLD), *options], input=typed)
    assert result.stdout == ""
    assert result.exit_code == bool(said)
    last = result.stderr.splitlines()[-1] if said else ""
    assert re.fullmatch(f"Error: {said}" if said else "", last), result.stderr


def test_without_standard_input_there_is_no_question(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", None)
    assert _asked() is None


def test_what_no_tokenizer_takes_is_asked_as_a_question_mark(replies: Callable[..., list[str]]) -> None:
    (prompts,) = [replies("no tags")]
    result = chat("--prompt", "h\udcffi \x1b[31m", "--system", "\ud800")
    assert result.exit_code == 0, result.output
    assert prompts[0].startswith("<|im_start|>system\n?<|im_end|>\n<|im_start|>user\nh?i \x1b[31m<|im_end|>")


@pytest.mark.parametrize(
    ("file", "content", "said"),
    [
        ("tokenizer.json", "no JSON", "{folder}: its tokenizer can't be loaded"),
        ("model.safetensors", "no weights", "{folder}: its weights can't be loaded"),
        ("chat_template.jinja", "", "{folder} has no chat template"),
        ("chat_template.jinja", "{{ '' }}", "the chat template renders nothing"),
        (
            "chat_template.jinja",
            "{{ raise_exception('no \x1b[31m') }}",
            "the chat template: TemplateError: no \\x1b[31m",
        ),
    ],
)
def test_a_folder_that_is_broken(tmp_path: Path, file: str, content: str, said: str) -> None:
    folder = shutil.copytree(OLD, tmp_path / "stage")
    (folder / file).write_text(content)
    result = CliRunner().invoke(sftkey, ["chat", str(folder), "--prompt", "q"])
    assert result.exit_code == 1
    assert result.stderr.splitlines()[-1].startswith(f"Error: {said.format(folder=folder)}"), result.stderr


def test_an_adapter_speaks_as_its_merged_weights(tmp_path: Path) -> None:
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    base, folder = tmp_path / "base", shutil.copytree(OLD, tmp_path / "stage")
    model = AutoModelForCausalLM.from_pretrained(OLD)
    model.save_pretrained(base)
    (folder / "model.safetensors").unlink()
    adapted = get_peft_model(model, LoraConfig(target_modules="all-linear", lora_alpha=200, init_lora_weights=False))
    adapted.peft_config["default"].base_model_name_or_path = str(base)
    adapted.save_pretrained(folder)
    # Neither transformers nor peft reads one beside an adapter.
    (folder / "generation_config.json").write_text('{"do_sample": true, "temperature": 9.0}')
    tokenizer = AutoTokenizer.from_pretrained(OLD)
    question = [{"role": "user", "content": "q"}]
    ids = encode(tokenizer, [str(tokenizer.apply_chat_template(question, tokenize=False, add_generation_prompt=True))])
    options: dict[str, Any] = {"max_new_tokens": 8, "batch_size": 1}
    (expected,) = complete(adapted.merge_and_unload(), tokenizer, ids, **options)
    result = CliRunner().invoke(sftkey, ["chat", str(folder), "--prompt", "q", "--max-new-tokens", "8", "--json"])
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["text"] == expected.text
    assert expected != complete(AutoModelForCausalLM.from_pretrained(base), tokenizer, ids, **options)[0]


def test_what_can_not_be_talked_to(tmp_path: Path) -> None:
    result = CliRunner().invoke(sftkey, ["chat", str(tmp_path)])
    assert result.exit_code == 1
    assert "hasn't finished" in result.stderr
    assert chat("--json").exit_code == 2
