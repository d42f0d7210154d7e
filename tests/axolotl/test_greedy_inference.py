"""``axolotl inference`` generates greedily, whatever Axolotl asks for."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
import transformers
from sftkey.axolotl.greedy_inference import make_inference_greedy


class Model:
    """Keeps the generation config that it is asked with."""

    def to(self, *_: Any, **__: Any) -> Model:
        return self

    def eval(self) -> None:
        pass

    def generate(self, *, generation_config: Any, **_: Any) -> dict[str, torch.Tensor]:
        self.asked = generation_config
        return {"sequences": torch.tensor([[1]])}


class Tokenizer:
    """Says as much as inference asks."""

    bos_token_id, eos_token_id, pad_token_id = 1, 2, 3

    def __call__(self, *_: Any, **__: Any) -> dict[str, torch.Tensor]:
        return {"input_ids": torch.tensor([[1]])}

    def decode(self, _: list[int]) -> str:
        return ""


def asked(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What Axolotl's own inference asks a model for."""
    from axolotl.cli import inference

    model, questions = Model(), iter(["How much?", ""])
    monkeypatch.setattr(inference, "load_model_and_tokenizer", lambda **_: (model, Tokenizer(), None))
    monkeypatch.setattr(inference, "resolve_chat_template_str", lambda *_: None)
    monkeypatch.setattr(inference, "get_multi_line_input", lambda: next(questions))
    monkeypatch.setattr(inference, "TextStreamer", lambda _: None)
    cfg = SimpleNamespace(device="cpu", torch_dtype=torch.float32)
    inference.do_inference(cfg=cfg, cli_args=SimpleNamespace(prompter=None))
    return model.asked.to_diff_dict()


def test_axolotls_inference_samples_and_ours_does_not(monkeypatch: pytest.MonkeyPatch) -> None:
    from axolotl.cli import inference

    # Put back at the end; another test may have loaded a recipe of ours before.
    monkeypatch.setattr(inference, "GenerationConfig", transformers.GenerationConfig)
    assert asked(monkeypatch)["do_sample"] is True
    for _ in range(2):  # the second time it is patched already
        make_inference_greedy()
        greedy = asked(monkeypatch)
        assert greedy.get("do_sample", False) is False
        assert not {"temperature", "top_k", "top_p"} & greedy.keys()
        assert greedy.get("repetition_penalty", 1.0) == 1.0
        assert greedy["max_new_tokens"] == 1024
        assert greedy["eos_token_id"] == 2
