"""What is expected of a model's output follows from its marker and its chat template."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from sftkey.evaluation import training_prompt
from sftkey.evaluation.trained_model import Expected, format_of
from sftkey.format.formats import THINK, THINKING_ANSWER
from sftkey.util.errors import UserError


def marked(folder: Path, content: Any) -> Path:
    (folder / "sftkey_stage.json").write_text(content if isinstance(content, str) else json.dumps(content))
    return folder


class Model:
    """As lm-eval's models are: a tokenizer, and a method that renders its template."""

    def __init__(self, folder: Path | str, prompt: Any) -> None:
        self.tokenizer = SimpleNamespace(name_or_path=str(folder))
        self.prompt = prompt

    def apply_chat_template(self, messages: Any) -> Any:
        return self.prompt


@pytest.mark.parametrize(
    ("prompt", "opened"),
    [
        ("<user>?<assistant>", ""),
        ("<user>?<assistant><think>\n", "<think>\n"),
        ("<user>?<assistant><think>", "<think>"),
        ("<user>?<assistant><think>\n\n</think>\n\n", ""),
        ([{"role": "user", "content": "?"}], ""),
    ],
)
def test_a_trained_model(tmp_path: Path, prompt: Any, opened: str) -> None:
    expected = Expected()
    expected.look_at(
        Model(marked(tmp_path, {"recipe": {"config": {"sftkey_format": "think"}}}), prompt).apply_chat_template
    )
    assert (expected.response_format, expected.opened) == (THINK, opened)


def test_any_other_model(tmp_path: Path) -> None:
    for place in (tmp_path, "Qwen/Qwen3-8B", "", None):
        assert format_of(place) is THINKING_ANSWER
    expected = Expected()
    expected.look_at(lambda messages: "<think>\n")
    assert (expected.response_format, expected.opened) == (THINKING_ANSWER, "")


def test_a_format_that_is_named_wins(tmp_path: Path) -> None:
    expected = Expected(THINK)
    expected.look_at(Model(tmp_path, "<think>\n").apply_chat_template)
    assert (expected.response_format, expected.opened) == (THINK, "<think>\n")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "can't be read"),
        ("[]", "can't be read"),
        ({"recipe": {"config": {"sftkey_format": "brief"}}}, "'brief' is not one of"),
        ({"recipe": {"config": {"sftkey_format": {"thinking_open": [1]}}}}, "thinking_open is not a text"),
    ],
)
def test_a_marker_that_cannot_be_used(tmp_path: Path, content: Any, message: str) -> None:
    with pytest.raises(UserError, match=message):
        format_of(marked(tmp_path, content))


@pytest.mark.parametrize("content", [{}, {"recipe": []}, {"recipe": {"config": 5}}, {"recipe": {"config": {}}}])
def test_a_marker_without_a_format(tmp_path: Path, content: Any) -> None:
    assert format_of(marked(tmp_path, content)) is THINKING_ANSWER


@pytest.mark.parametrize(("method", "warned"), [("sft-tag", False), ("key-tag", False), ("sft", True), (None, True)])
def test_a_stage_with_a_prompt_of_its_own_is_not_told_that_it_never_hears_of_the_tags(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, method: str | None, warned: bool
) -> None:
    monkeypatch.setattr(training_prompt, "_warned", set())
    if method is not None:
        marked(tmp_path, {"recipe": {"config": {"sftkey_method": method}}})
    render = Model(tmp_path, "Think first, then answer. ?").apply_chat_template
    training_prompt.system_message("a_task", plain=False, wanted=False, given=None, render=render)
    assert ("never hears of the tags" in caplog.text) == warned
