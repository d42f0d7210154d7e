"""Generated conversations, and what the last turn of one is as a training row."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st
from jinja2 import TemplateError
from support.brute_force_mask import brute_force

ADD = {"type": "function", "function": {"name": "add", "parameters": {"type": "object", "properties": {}}}}
CALL = {"type": "function", "id": "abcdefghi", "function": {"name": "add", "arguments": {"a": 2}}}

WORDS = st.sampled_from(["Is it 1 < 2?", "yes", "12.5", "\u00e9t\u00e9", "two\nlines", "a  b", "so:\n\n- one", "(x)"])


@st.composite
def chats(draw: st.DrawFn, *, tools: bool = True, system: bool = True) -> dict[str, Any]:
    """A row of one to six turns that every template takes: roles alternate but for tool calls and their results."""
    messages: list[dict[str, Any]] = []
    if system and draw(st.booleans()):
        messages.append({"role": "system", "content": draw(WORDS)})
    calls = False
    turns = draw(st.integers(1, 6))
    for turn in range(turns):
        question = draw(WORDS)
        parts = [{"type": "text", "text": question[:2]}, {"type": "text", "text": question[2:]}]
        messages.append({"role": "user", "content": parts if draw(st.booleans()) else question})
        if tools and draw(st.booleans()):
            calls = True
            messages.append({"role": "assistant", "content": "", "tool_calls": [CALL]})
            messages.append({"role": "tool", "content": draw(WORDS), "tool_call_id": CALL["id"]})
        answer = {"role": "assistant", "content": draw(WORDS)}
        if turn == turns - 1 or draw(st.booleans()):
            thinking = draw(WORDS)
            if draw(st.booleans()):
                answer["reasoning_content"] = thinking
            else:
                answer["content"] = f"<think>\n{thinking}\n</think>\n\n{answer['content']}"
        messages.append(answer)
    return {"messages": messages, **({"tools": [ADD]} if calls else {})}


def plain(message: dict[str, Any]) -> dict[str, Any]:
    """A message as a server gets it: one text, reasoning beside it. Written without the package's code."""
    content = message["content"]
    content = content if isinstance(content, str) else "".join(part["text"] for part in content)
    found = {**message, "content": content}
    if content.startswith("<think>"):
        thinking, _, answer = content.removeprefix("<think>").partition("</think>")
        found |= {"content": answer.strip(), "reasoning_content": thinking.strip()}
    return found


def trained_turns(tokenizer: Any, row: dict[str, Any], turns: str, method: str) -> list[tuple[list[int], list[int]]]:
    """Token ids and labels of each turn that is trained, from the tokenizer's own rendering and the paper's format.

    Args:
        tokenizer: With one of the package's chat templates, which refuse tools.
        row: One of `chats`.
        turns: ``last`` or ``all``.
        method: ``sft-tag`` or ``key-tag``.
    """
    messages = [plain(one) for one in row["messages"]]
    found = [place for place, one in enumerate(messages) if "reasoning_content" in one][-1 if turns == "last" else 0 :]
    rows = []
    for place in found:
        try:
            prompt = tokenizer.apply_chat_template(
                messages[:place], tools=row.get("tools"), tokenize=False, add_generation_prompt=True
            )
        except TemplateError:
            continue
        response = messages[place]
        rows.append(brute_force(tokenizer, prompt, response["reasoning_content"], response["content"], method))
    return rows


def check_chat(tokenize: Any, row: dict[str, Any], tokens: Any) -> None:
    """Tokens of a row's last turn against the tokenizer's own rendering and against the texts, character by character."""
    from sftkey.format.segments import Segment
    from sftkey.training.tokenization import IGNORE_INDEX

    tokenizer = tokenize.tokenizer
    history, response = [plain(one) for one in row["messages"][:-1]], plain(row["messages"][-1])
    served = tokenizer.apply_chat_template(history, tools=row.get("tools"), tokenize=False, add_generation_prompt=True)
    prompt_ids = tokenizer(served, add_special_tokens=False).input_ids
    assert tokens.input_ids[: len(prompt_ids)] == prompt_ids
    assert set(tokens.segments[: len(prompt_ids)]) == {Segment.PROMPT}
    written = tokenize.response_format
    thinking = f"{written.thinking_open}{response['reasoning_content']}{written.thinking_close}"
    answer = f"{written.answer_open}{response['content']}{written.answer_close}{tokenize.end_of_turn}"
    decode = {"skip_special_tokens": False, "clean_up_tokenization_spaces": False}
    rest = tokenizer.decode(tokens.input_ids[len(prompt_ids) :], **decode)
    assert rest == (thinking + answer).removeprefix(tokenize.opened)
    labels = [label for label in tokens.labels if label != IGNORE_INDEX]
    key = Segment.THINKING not in tokenize.method.trained
    assert tokenizer.decode(labels, **decode) == (answer if key else rest)
