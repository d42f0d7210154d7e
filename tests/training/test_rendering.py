"""A chat template is a program: rendered as transformers renders it, and stopped where it doesn't end."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from sftkey.training.rendering import TemplateError, TemplateOverLimit, render

MESSAGES = [{"role": "user", "content": "Is it?"}]
TOOLS = [{"type": "function", "function": {"name": "add", "parameters": {"type": "object"}}}]


@pytest.fixture
def qwen3(shared_dir: Path) -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(shared_dir / "tokenizers" / "qwen3")


def test_it_is_what_the_tokenizer_renders(qwen3: Any) -> None:
    for tools in ([], TOOLS):
        for prompt in (False, True):
            assert render(qwen3, MESSAGES, tools, add_generation_prompt=prompt) == qwen3.apply_chat_template(
                MESSAGES, tools=tools or None, tokenize=False, add_generation_prompt=prompt
            )


HOSTILE = (
    "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}",
    "{% macro m(n) %}{% if n %}{{ m(n - 1) }}{{ m(n - 1) }}{% endif %}{% endmacro %}{{ m(60) }}",
    "{% set ns = namespace(t='aaaa') %}{% for a in range(60) %}{% set ns.t = ns.t + ns.t %}{% endfor %}",
    "{{ 'a' * 10**10 }}",
    "{{ 'a' | center(10**10) }}",
    "{{ '%0999999999d' % 1 }}",
    "{{ 'a' * 10**7 }}",
)


def test_what_never_ends_is_stopped(qwen3: Any) -> None:
    for template in HOSTILE:
        qwen3.chat_template = template
        with pytest.raises(TemplateOverLimit, match=r"it takes more than|it was stopped") as found:
            render(qwen3, MESSAGES)
        assert "\n" not in str(found.value)
    # The next prompt is rendered as ever.
    qwen3.chat_template = "{{ messages[0].content }}"
    assert render(qwen3, MESSAGES) == "Is it?"


@pytest.mark.parametrize(
    ("template", "message"),
    [
        ("{{ raise_exception('no\nusers') }}", "TemplateError: no\nusers"),
        ("{% for a in range(10**9) %}{% endfor %}", "OverflowError"),
        ("{{ messages[0].__class__ }}{{ messages[0].__class__.x }}", "SecurityError"),
    ],
)
def test_what_a_template_says(qwen3: Any, template: str, message: str) -> None:
    qwen3.chat_template = template
    with pytest.raises(TemplateError) as found:
        render(qwen3, MESSAGES)
    assert message in str(found.value)
    assert not isinstance(found.value, TemplateOverLimit)
