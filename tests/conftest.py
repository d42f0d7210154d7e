"""Fixtures of all rooms."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from availability import REPOSITORY, SHARED, skip_or_fail
from hypothesis import settings

# CI runs the same examples every time; at a desk new ones are tried at each run.
settings.register_profile("ci", derandomize=True, print_blob=True)
if os.environ.get("CI"):
    settings.load_profile("ci")

# Nothing in the tests goes to the network, whoever starts them.
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("AXOLOTL_DO_NOT_TRACK", "1")


@pytest.fixture(scope="session")
def repository() -> Path:
    """The root of the checkout."""
    return REPOSITORY


@pytest.fixture(scope="session")
def shared_dir() -> Path:
    """Real data and tokenizers, kept beside the checkout because they are not ours to ship."""
    if not SHARED.is_dir():
        skip_or_fail("needs the real GSM8K rows and the Qwen3 tokenizer in ../shared")
    return SHARED


@pytest.fixture(scope="session")
def gsm8k_rows(shared_dir: Path) -> dict[str, list[dict[str, Any]]]:
    """All 7,473 + 1,319 real GSM8K rows, by split."""
    return {
        split: [json.loads(line) for line in (shared_dir / "data" / "gsm8k" / f"{split}.jsonl").open(encoding="utf-8")]
        for split in ("train", "test")
    }


@pytest.fixture(params=["text", "tokens"])
def tag_mode(request: pytest.FixtureRequest) -> str:
    """Both ways in which a tokenizer can have the tags."""
    return request.param


@pytest.fixture
def qwen3_tokenizer(shared_dir: Path, tag_mode: str) -> Any:
    """The real Qwen3 tokenizer with the ``thinking_answer`` template, tags as `tag_mode` says."""
    from sftkey import tags, templates
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(shared_dir / "tokenizers" / "qwen3")
    if tag_mode == "tokens":
        tokenizer.add_tokens(list(tags.TAGS))
    tokenizer.chat_template = templates.chat_template(templates.TAGGED)
    return tokenizer
