"""A question within a conversation is asked with its history."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from sftkey.datasets.gsm8k import GSM8K
from sftkey.datasets.messages import MESSAGES
from sftkey.evaluation.conversations import AsksWithHistory
from sftkey.util.errors import UserError

TOOL = {"type": "function", "function": {"name": "add"}}
ROW = {
    "messages": [
        {"role": "user", "content": "2+3?"},
        {"role": "assistant", "content": "5", "reasoning_content": "two and three"},
        {"role": "user", "content": "And 1?"},
        {"role": "assistant", "content": "6"},
    ]
}


class Harness:
    """What lm-eval does with a question and a system message."""

    def fewshot_context(self, doc: Any, system_instruction: str | None = None, chat_template: Any = None) -> Any:
        question = MESSAGES.question_of(doc) if "messages" in doc else doc["question"]
        system = [{"role": "system", "content": system_instruction}] if system_instruction else []
        asked = [*system, {"role": "user", "content": question}]
        return chat_template(asked, add_generation_prompt=True) if chat_template else question


class Task(AsksWithHistory, Harness):
    """As `SFTKeyTask` is put together."""


def render(messages: list[dict[str, Any]], **options: Any) -> Any:
    return messages


def asked(row: dict[str, Any], on: Any = MESSAGES, **options: Any) -> Any:
    task = Task()
    task._on = on
    return task.fewshot_context(row, **options)


def test_the_history_is_sent() -> None:
    assert asked(ROW, chat_template=render) == ROW["messages"][:3]
    assert asked(ROW, chat_template=render, system_instruction="S") == [
        {"role": "system", "content": "S"},
        *ROW["messages"][:3],
    ]
    own = {"messages": [{"role": "system", "content": "Own."}, *ROW["messages"]]}
    assert asked(own, chat_template=render, system_instruction="S") == own["messages"][:4]
    assert asked(ROW) == "And 1?"


def test_other_questions_are_asked_as_ever() -> None:
    assert asked({"messages": ROW["messages"][2:]}, chat_template=render) == [ROW["messages"][2]]
    assert asked({"question": "x"}, GSM8K, chat_template=render) == [{"role": "user", "content": "x"}]
    assert asked({"question": "x"}, None) == "x"


def test_tools_go_to_the_models_own_template() -> None:
    class Model:
        tokenizer = SimpleNamespace(apply_chat_template=lambda messages, **options: (messages, options))

        def apply_chat_template(self, messages: Any, **options: Any) -> Any:
            raise AssertionError("it takes no tools")

    messages, options = asked({**ROW, "tools": [TOOL]}, chat_template=Model().apply_chat_template)
    assert messages == ROW["messages"][:3]
    assert options == {"tools": [TOOL], "tokenize": False, "add_generation_prompt": True}
    with pytest.raises(UserError, match="can't send to a server"):
        asked({**ROW, "tools": [TOOL]}, chat_template=render)
