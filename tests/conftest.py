"""Fixtures of all rooms."""

from __future__ import annotations

import json
import logging
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings
from support.availability import REPOSITORY, SHARED, skip_or_fail

# CI runs the same examples every time; at a desk new ones are tried at each run. How long one takes says how busy the machine
# is: what has to be fast is measured by tests of its own.
settings.register_profile("ci", derandomize=True, print_blob=True, deadline=None)
settings.register_profile("desk", deadline=None)
settings.load_profile("ci" if os.environ.get("CI") else "desk")

# As at a terminal, also under nohup or a service: tests send these to what they start. `test_launch.py` tries the others.
for number, usual in ((signal.SIGINT, signal.default_int_handler), (signal.SIGHUP, signal.SIG_DFL)):
    if signal.getsignal(number) is signal.SIG_IGN:
        signal.signal(number, usual)

# Nothing in the tests goes to the network, whoever starts them.
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("AXOLOTL_DO_NOT_TRACK", "1")

# The models are so small that the threads of a step wait for each other, and as many workers run as there are cores.
os.environ.setdefault("OMP_NUM_THREADS", "1")


LOGGERS = ("sftkey", "sftkey.evaluation", "lm_eval", "lm_eval.tasks", "lm_eval.tasks.sftkey", "axolotl")


@pytest.fixture(autouse=True)
def logging_as_it_was() -> Iterator[None]:
    """Loggers as in a process of one's own: commands, lm-eval and Axolotl set theirs for all that comes after.

    Axolotl, once imported, gives every new logger but its own a filter that drops what is below a warning.
    """
    for name, known in logging.root.manager.loggerDict.items():
        if name.startswith(("sftkey", "lm_eval")) and isinstance(known, logging.Logger):
            known.filters.clear()
    loggers = [logging.getLogger(name) for name in LOGGERS]
    before = [(logger.level, logger.propagate, logger.disabled, logger.parent) for logger in loggers]
    disabled = logging.root.manager.disable
    yield
    logging.disable(disabled)
    for logger, (level, propagate, off, parent) in zip(loggers, before, strict=True):
        logger.setLevel(level)
        logger.propagate, logger.disabled, logger.parent = propagate, off, parent


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
    from sftkey.format import templates
    from sftkey.format.formats import THINKING_ANSWER
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(shared_dir / "tokenizers" / "qwen3")
    if tag_mode == "tokens":
        tokenizer.add_tokens(list(THINKING_ANSWER.tags))
    tokenizer.chat_template = templates.chat_template(templates.TAGGED)
    return tokenizer


@pytest.fixture(scope="session")
def tiny_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with ``model/`` and ``data/{train,test}.jsonl``: the demo's, with few rows."""
    from demo.setup_demo import set_up

    root = tmp_path_factory.mktemp("tiny")
    set_up(root, train=64, test=16)
    return root


@pytest.fixture
def stage1_recipe(tiny_root: Path, tmp_path: Path) -> dict[str, Any]:
    """A Stage 1 recipe that trains the tiny model on the CPU."""
    return {
        "base_model": str(tiny_root / "model"),
        "output_dir": str(tmp_path / "outputs" / "stage1"),
        "plugins": ["sftkey.SFTKeyPlugin"],
        "sftkey_method": "sft-tag",
        "default_system_message": "Think first, then answer.",
        "datasets": [{"path": str(tiny_root / "data" / "train.jsonl"), "type": "sftkey.datasets.columns"}],
        "dataset_prepared_path": str(tmp_path / "prepared"),
        "sequence_len": 128,
        "micro_batch_size": 4,
        "gradient_accumulation_steps": 2,
        "num_epochs": 1,
        "learning_rate": 1e-3,
        "optimizer": "adamw_torch",
        "lr_scheduler": "cosine",
        "bf16": False,
        "attn_implementation": "sdpa",
        "logging_steps": 1,
        "save_strategy": "no",
        "seed": 7,
    }


@pytest.fixture
def fresh_axolotl() -> Iterator[None]:
    """Axolotl's plugin manager is one per process, and it sets environment variables."""
    from axolotl.integrations.base import PluginManager

    before = dict(os.environ)
    PluginManager.get_instance().plugins.clear()
    yield
    PluginManager.get_instance().plugins.clear()
    os.environ.clear()
    os.environ.update(before)


@pytest.fixture(scope="session")
def openbookqa_rows(shared_dir: Path) -> list[dict[str, Any]]:
    """The 500 real test rows of OpenBookQA."""
    lines = (shared_dir / "data" / "openbookqa" / "test.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]
