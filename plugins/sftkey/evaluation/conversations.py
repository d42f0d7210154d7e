"""Questions within conversations: an evaluated model is asked with the history that a training row has."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from sftkey.datasets.base import ReasoningDataset
from sftkey.util.errors import UserError


class AsksWithHistory:
    """For tasks of lm-eval: the messages before a row's question are sent with it. Goes before lm-eval's own class."""

    _on: ReasoningDataset | None = None

    def fewshot_context(self, doc: Any, *args: Any, **options: Any) -> Any:
        """The prompt of a row; see lm-eval."""
        on, render = self._on, options.get("chat_template")
        history = on.history(doc) if on is not None and on.history is not None else ()
        if history and render is not None:
            tools = on.tools(doc) if on is not None and on.tools is not None else ()
            options["chat_template"] = _with_history(render, history, tools)
        return super().fewshot_context(doc, *args, **options)  # type: ignore[misc]


def _with_history(
    render: Callable[..., Any], history: Sequence[Mapping[str, Any]], tools: Sequence[Mapping[str, Any]]
) -> Callable[..., Any]:
    """A chat template that puts a history in the place of the last message, and of a system message where it has one."""

    def rendered(messages: Sequence[Mapping[str, Any]], **options: Any) -> Any:
        before = list(messages[:-1])
        if history[0]["role"] == "system":
            before = [message for message in before if message["role"] != "system"]
        asked = [*before, *history]
        if not tools:
            return render(asked, **options)
        tokenizer = getattr(getattr(render, "__self__", None), "tokenizer", None)
        if tokenizer is None:
            raise UserError("the rows have tools, which lm-eval can't send to a server; evaluate the checkpoint itself")
        return tokenizer.apply_chat_template(asked, tools=list(tools), tokenize=False, **options)

    return rendered
