"""Chats of two turns on real weights: SmolLM2-135M-Instruct learns them in ``think``, and two servers answer.

    make test-servers

Both stages go through ``axolotl train``; SmolLM2's own chat template, which knows no thinking, makes the prompts. The
questions are GSM8K's, those that are asked were not trained on.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sftkey.datasets.gsm8k import to_example
from sftkey.format.example import Example
from sftkey.format.formats import THINK
from support.axolotl_recipes import stage2_of, write_recipe
from support.commands import succeeded, train
from support.servers import Chat, served_stage
from support.smollm2 import as_hugging_face, gguf_file

# About ten minutes on two idle cores.
pytestmark = [pytest.mark.servers, pytest.mark.timeout(5_000)]

CHATS, ASKED = 64, 2
FOLLOW_UP = "And what is twice that?"
LONGEST = 200
"""Tokens of a response."""


def questions(file: Path, count: int) -> list[Example]:
    """The shortest rows whose answer is a whole number."""
    rows = [to_example(json.loads(line)) for line in file.read_text(encoding="utf-8").splitlines()]
    whole = [row for row in rows if row.answer.isdigit()]
    return sorted(whole, key=lambda row: len(row.question) + len(row.thinking))[:count]


def a_chat(row: Example) -> dict[str, Any]:
    """A row with two turns: the question, and one that can't be answered without the first answer."""
    twice = str(2 * int(row.answer))
    thinking = f"The answer was {row.answer}. Twice that is {row.answer} + {row.answer} = {twice}."
    return {
        "messages": [
            {"role": "user", "content": row.question},
            {"role": "assistant", "reasoning_content": row.thinking, "content": row.answer},
            {"role": "user", "content": FOLLOW_UP},
            {"role": "assistant", "reasoning_content": thinking, "content": twice},
        ]
    }


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory, shared_dir: Path) -> Path:
    """Stage 2's folder."""
    root = tmp_path_factory.mktemp("user")
    rows = questions(shared_dir / "data" / "gsm8k" / "train.jsonl", CHATS)
    (root / "chats.jsonl").write_text("".join(json.dumps(a_chat(row)) + "\n" for row in rows), encoding="utf-8")
    stage1: dict[str, Any] = {
        "base_model": str(as_hugging_face(gguf_file(root), root / "model")),
        "output_dir": "outputs/stage1",
        "plugins": ["sftkey.SFTKeyPlugin"],
        "sftkey_method": "sft-tag",
        "sftkey_format": "think",
        "sftkey_turns": "all",
        "datasets": [{"path": "chats.jsonl", "ds_type": "json", "split": "train", "type": "sftkey.datasets.messages"}],
        "dataset_prepared_path": "prepared",
        "sequence_len": 512,
        "micro_batch_size": 4,
        "gradient_accumulation_steps": 1,
        "num_epochs": 1,
        "learning_rate": 2e-4,
        "optimizer": "adamw_torch",
        "lr_scheduler": "cosine",
        "bf16": False,
        "attn_implementation": "sdpa",
        "logging_steps": 1,
        "save_strategy": "no",
        "seed": 3,
    }
    stage2 = {**stage2_of(stage1), "max_steps": 8, "learning_rate": 5e-5}
    for name, recipe in (("stage1", stage1), ("stage2", stage2)):
        before = time.monotonic()
        succeeded(train(write_recipe(root / f"{name}.yml", recipe), cwd=root, timeout=2_400))
        log = json.loads((root / "outputs" / name / "trainer_state.json").read_text())["log_history"]
        steps = [entry for entry in log if "loss_answer" in entry]
        losses = {key: [steps[0][key], steps[-1][key]] for key in ("loss_format", "loss_answer")}
        seconds, tokens = log[-1]["train_runtime"], steps[-1]["tokens/total"]
        print(
            f"\n{name}: {time.monotonic() - before:.0f} s, {len(steps)} steps in {seconds:.0f} s, {tokens} tokens, {losses}"
        )
        assert steps[-1]["loss_format"] < 0.1
    return root / "outputs" / "stage2"


@pytest.fixture(scope="module", params=["llama.cpp", "vllm"])
def chat(request: pytest.FixtureRequest, stage: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chat]:
    with served_stage(request.param, stage, tmp_path_factory.mktemp(request.param)) as chat:
        yield chat


@pytest.mark.parametrize("stream", [False, True])
def test_two_turns_come_apart_as_they_were_trained(chat: Chat, stream: bool, shared_dir: Path) -> None:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(chat.folder)
    for row in questions(shared_dir / "data" / "gsm8k" / "test.jsonl", ASKED):
        sent: list[dict[str, Any]] = []
        for question in (row.question, FOLLOW_UP):
            sent.append({"role": "user", "content": question})
            before = time.monotonic()
            reply = chat.ask(sent, stream=stream, max_tokens=LONGEST)
            print(f"\n{chat.name}, {stream=}, {time.monotonic() - before:.1f} s: {question!r} {reply}")

            # What was trained: the template's own rendering, in which an earlier turn has no thinking.
            history = [{key: text for key, text in one.items() if key != chat.reasoning} for one in sent]
            expected = tokenizer.apply_chat_template(history, add_generation_prompt=True, return_dict=True)["input_ids"]
            prompt, tokens = chat.rendered(sent)
            assert tokens == expected
            assert reply["usage"]["prompt_tokens"] == len(expected)

            written = chat.complete(prompt, LONGEST)
            parsed = THINK.parse(written)
            assert parsed.well_formed, written
            # llama.cpp keeps the line break before the tag.
            break_ = "\n" if chat.name == "llama.cpp" else ""
            assert reply[chat.reasoning] == f"{parsed.thinking}{break_}"
            assert reply["content"] == parsed.answer
            if chat.name == "vllm":
                places = tokenizer(written, return_offsets_mapping=True)["offset_mapping"]
                inside = range(len("<think>"), written.index("</think>"))
                counted = sum(start < inside.stop and end > inside.start for start, end in places)
                assert reply["usage"]["completion_tokens_details"]["reasoning_tokens"] == counted
            message = {"role": "assistant", "thinking": parsed.thinking, "content": parsed.answer}
            assert tokenizer.parse_response(f"{written}<|im_end|>", prefix=tokenizer.decode(expected)) == message
            sent.append({key: reply[key] for key in ("role", "content", chat.reasoning)})


@pytest.mark.parametrize("stream", [False, True])
def test_an_answer_in_json_follows_free_thinking(chat: Chat, stream: bool, shared_dir: Path) -> None:
    if chat.name != "vllm":
        pytest.skip("vLLM's engine asks the parser where the thinking ends")
    (row,) = questions(shared_dir / "data" / "gsm8k" / "test.jsonl", 1)
    schema = {
        "type": "object",
        "properties": {"n": {"type": "integer"}},
        "required": ["n"],
        "additionalProperties": False,
    }
    wanted = {"type": "json_schema", "json_schema": {"name": "answer", "schema": schema}}
    sent = [{"role": "user", "content": row.question}]
    reply = chat.ask(sent, stream=stream, max_tokens=LONGEST, response_format=wanted)
    print(f"\n{chat.name}, {stream=}: {reply}")
    free = chat.ask(sent, max_tokens=LONGEST)
    assert reply[chat.reasoning] == free[chat.reasoning]
    assert isinstance(json.loads(reply["content"])["n"], int)
