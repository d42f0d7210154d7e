"""The dilution map: its stack of models has the project's loss, its problems are as described, a unit runs and is kept."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from sftkey.training.loss import causal_loss
from transformers import LlamaConfig, LlamaForCausalLM

from experiments import dilution
from experiments.dilution_problems import PROMPT, Batch, Condition, Problems, read, thinking_text
from experiments.stacked import Shape, Stack, generate, initial, losses

CPU = torch.device("cpu")
SHAPE = Shape(dilution.VOCABULARY, width=32, layers=2, heads=2, inner=48)
LLAMA_NAMES = {
    "q": "self_attn.q_proj",
    "k": "self_attn.k_proj",
    "v": "self_attn.v_proj",
    "o": "self_attn.o_proj",
    "gate": "mlp.gate_proj",
    "up": "mlp.up_proj",
    "down": "mlp.down_proj",
    "norm1": "input_layernorm",
    "norm2": "post_attention_layernorm",
}


def name_in_llama(name: str) -> str:
    layer, _, part = name.partition(".")
    if part:
        return f"model.layers.{layer}.{LLAMA_NAMES[part]}.weight"
    return {"embed": "model.embed_tokens.weight", "norm": "model.norm.weight", "head": "lm_head.weight"}[name]


def as_llama(stack: Stack, model: int) -> LlamaForCausalLM:
    config = LlamaConfig(
        vocab_size=SHAPE.vocabulary,
        hidden_size=SHAPE.width,
        num_hidden_layers=SHAPE.layers,
        num_attention_heads=SHAPE.heads,
        intermediate_size=SHAPE.inner,
        rms_norm_eps=SHAPE.eps,
        attn_implementation="sdpa",
    )
    llama = LlamaForCausalLM(config)
    llama.load_state_dict({name_in_llama(name): value[model].detach() for name, value in stack.items()})
    return llama


@pytest.fixture(scope="module")
def problems() -> Problems:
    return Problems([Condition(6, 1, 8), Condition(6, 64, 24)], [3, 4], CPU)


@pytest.mark.parametrize("thinking", [1.0, 0.0, 0.1])
def test_the_loss_of_each_model_and_its_gradient_are_the_projects(problems: Problems, thinking: float) -> None:
    stack = initial(SHAPE, [3, 4], CPU)
    for value in stack.values():
        value.requires_grad_(True)
    batch = problems.training_batch(5, torch.Generator().manual_seed(1))
    weights = dilution.weights(problems, thinking)
    found = losses(stack, SHAPE, batch.ids, PROMPT, weights.expand(2, -1))
    found.sum().backward()
    segments = torch.tensor([0] * PROMPT + problems.segments).expand(5, -1)
    of_segment = torch.zeros(8)
    of_segment[problems.segments] = weights
    labels = torch.where(segments > 0, batch.ids, -100)
    for model in range(2):
        llama = as_llama(stack, model)
        expected = causal_loss(llama, {"input_ids": batch.ids[model]}, labels[model], segments, weights=of_segment)
        expected.loss.backward()
        assert found[model].item() == pytest.approx(expected.loss.item(), rel=1e-5)
        gradients = {name: parameter.grad for name, parameter in llama.named_parameters()}
        for name, value in stack.items():
            assert value.grad is not None
            torch.testing.assert_close(value.grad[model], gradients[name_in_llama(name)], rtol=1e-3, atol=1e-6)


def test_generation_is_llamas(problems: Problems) -> None:
    stack = initial(SHAPE, [3, 4], CPU)
    prompts = problems.test_batch(4, torch.Generator().manual_seed(1)).ids[:, :, :PROMPT]
    found = generate(stack, SHAPE, prompts, 12, dilution.END)
    for model in range(2):
        output = as_llama(stack, model).generate(
            prompts[model], do_sample=False, max_new_tokens=12, eos_token_id=dilution.END, pad_token_id=dilution.END
        )[:, PROMPT:]
        assert found[model, :, : output.shape[1]].tolist() == output.tolist()


def test_weights_are_those_of_the_projects_methods(problems: Problems) -> None:
    from sftkey.format.methods import METHODS
    from sftkey.training.weights import segment_weights

    for thinking, method, groups in (
        (1.0, "sft-tag", None),
        (0.0, "key-tag", None),
        (0.1, "sft-tag", {"thinking": 0.1}),
    ):
        expected = segment_weights(groups, METHODS[method])[problems.segments]
        assert dilution.weights(problems, thinking).tolist() == expected.tolist()


def test_problems_are_answered_by_their_table_and_held_out_pairs_are_not_trained_on(problems: Problems) -> None:
    generator = torch.Generator().manual_seed(2)
    test = problems.test_batch(512, generator)
    train = problems.training_batch(2_000, generator)
    for model in range(2):
        pairs = [{tuple(row) for row in batch.ids[model, :, 1:3].tolist()} for batch in (test, train)]
        assert len(pairs[0]) == 512
        assert not pairs[0] & pairs[1]
        answers: dict[tuple[int, ...], int] = {}
        for row, answer in zip(train.values[model].tolist(), train.answers[model].tolist(), strict=True):
            assert answers.setdefault(tuple(row), answer) == answer
        words = train.ids[model, :, PROMPT + 1 : PROMPT + 1 + problems.length].unique()
        assert len(words) == (1, 64)[model]


def test_a_reference_is_right_and_each_damage_is_seen(problems: Problems) -> None:
    batch = problems.test_batch(3, torch.Generator().manual_seed(2))
    response = batch.ids[:, :, PROMPT:]
    found = read(response, batch)
    for values in (found.right, found.well_formed, found.thinking_right, found.finished):
        assert values.all()
    assert (found.tokens == response.shape[-1]).all()
    place = problems.length + 3  # </Thinking>
    damaged = {
        "right": (place + 2, "right"),
        "a value": (place - 1, "thinking_right"),
        "a tag": (place + 3, "well_formed"),
        "the opening": (0, "well_formed"),
    }
    for where, name in damaged.values():
        changed = response.clone()
        changed[0, 0, where] = batch.ids[0, 0, 1]
        values = getattr(read(changed, batch), name)
        assert not values[0, 0]
        assert values.sum() == values.size - 1
    assert not read(response[:, :, :-1], batch).finished.any()
    text = thinking_text(response[0, 0].numpy())
    assert text is not None
    assert [int(word) for word in text.split() if word.isdigit()] == (batch.values[0, 0] - 7 - 64).tolist()


def test_a_unit_runs_and_is_not_run_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(dilution, "REACHED", (0.0,))
    call = ["--output", str(tmp_path), "--lengths", "4", "--seeds", "0", "--items", "16", "--stage1-steps", "20"]
    call += ["--stage2-steps", "2", "--device", "cpu"]
    dilution.main(call)
    (path,) = tmp_path.iterdir()
    curve, *runs = map(json.loads, path.read_text().splitlines())
    assert [row[0] for row in curve["curve"]] == [10]
    assert {run["arm"] for run in runs} == {"stage 1", *dilution.ARMS}
    assert len(runs) == 6 * 5
    for run in runs:
        assert len(np.unpackbits(np.frombuffer(bytes.fromhex(run["right"]), dtype=np.uint8))) == 16
        assert ("verdict" in run) == (run["arm"] == "stage 1")
    assert "30 records" not in capsys.readouterr().out.replace("31 records", "")
    before = path.stat().st_mtime_ns
    dilution.main(call)
    assert path.stat().st_mtime_ns == before


def test_the_parts_of_a_batch_belong_together(problems: Problems) -> None:
    chosen = problems.chosen(torch.tensor([1, 1]))
    batch = chosen.test_batch(4, torch.Generator().manual_seed(2))
    assert isinstance(batch, Batch)
    assert batch.ids[0, :, 1:3].tolist() == batch.ids[1, :, 1:3].tolist()
    assert batch.answers[0].tolist() == problems.test_batch(4, torch.Generator().manual_seed(2)).answers[1].tolist()
