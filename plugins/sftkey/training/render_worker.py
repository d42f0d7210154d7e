"""The process that renders chat templates; started by `sftkey.training.rendering`."""

from __future__ import annotations

from typing import Any

from sftkey.training.rendering import MAX_MEMORY, MAX_SECONDS
from sftkey.util.bounded_worker import OVER_LIMIT, Answer, serve


def _load() -> Answer:
    from transformers.utils import chat_template_utils

    render_jinja_template: Any = chat_template_utils.render_jinja_template  # annotated as if it gave a text

    def answer(request: dict[str, Any]) -> dict[str, Any]:
        try:
            rendered, _ = render_jinja_template(
                conversations=[request["messages"]],
                tools=request["tools"],
                chat_template=request["template"],
                add_generation_prompt=request["add_generation_prompt"],
                **request["tokens"],
            )
        except MemoryError:
            raise
        except Exception as error:  # whatever the template's own code raises
            return {"error": f"{type(error).__name__}: {str(error)[:1_000]}"}
        if len(rendered[0]) > request["most"]:
            return {OVER_LIMIT: f"more than {request['most']:,} characters"}
        return {"text": rendered[0]}

    answer({"messages": [], "tools": None, "template": "", "add_generation_prompt": False, "tokens": {}, "most": 0})
    return answer


if __name__ == "__main__":
    serve(_load, seconds=MAX_SECONDS, memory=MAX_MEMORY)
