"""Without the context gradient: the exact path's loss, and the gradient with the context's keys and values held constant."""

import contextlib

import peft
import pytest
import torch
import transformers
from sftkey.format.segments import Segment
from sftkey.training import context_grad
from sftkey.training.collator import SegmentCollator
from sftkey.training.context_grad import ContextCache, after_context, unsupported, without_gradient_checkpointing
from sftkey.training.loss import causal_loss
from sftkey.training.sparse_logits import _known
from sftkey.training.trainer import SegmentLossTrainer
from sftkey.util.errors import UserError
from support.processes import PROCESSES, in_processes
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from transformers import (
    AttentionInterface,
    AttentionMaskInterface,
    AutoConfig,
    AutoModelForCausalLM,
    DataCollatorForSeq2Seq,
    TrainingArguments,
)
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

VOCABULARY = 67
SHAPE = {
    "vocab_size": VOCABULARY,
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 8,
    "max_position_embeddings": 64,
    "initializer_range": 0.3,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
ARCHITECTURES = {
    "qwen3": {},
    "qwen2": {},
    "llama": {},
    # Its third layer has no rotary embedding.
    "smollm3": {"no_rope_layers": [1, 1, 0]},
    "mistral": {"sliding_window": 4},
    # Softcapped logits, sliding and full attention in turn.
    "gemma2": {"sliding_window": 4, "final_logit_softcapping": 5.0, "attn_logit_softcapping": None},
}
ANSWER = frozenset({Segment.ANSWER})

_context: list[torch.Tensor] = []
"""Which positions of the batch are context, shape ``(B, T)``, for `constant_context`; empty for none."""


def constant_context(module, query, key, value, attention_mask, **kwargs):
    """Attention in which keys and values of the context carry no gradient: the definition of the method, in one line."""
    if _context:
        context = _context[0][:, None, :, None]
        key, value = (torch.where(context, states.detach(), states) for states in (key, value))
    return sdpa_attention_forward(module, query, key, value, attention_mask, **kwargs)


AttentionInterface.register("constant_context", constant_context)
AttentionMaskInterface.register("constant_context", sdpa_mask)


def build(architecture="qwen3", **options):
    torch.manual_seed(0)
    settings = SHAPE | ARCHITECTURES.get(architecture, {}) | {"attn_implementation": "constant_context"} | options
    return AutoModelForCausalLM.from_config(AutoConfig.for_model(architecture, **settings))


def batch(rows, width=None, side="right", seed=0):
    """A padded batch of rows given as (prompt and thinking, answer, rest) token counts; answers carry labels."""
    generator = torch.Generator().manual_seed(seed)
    width = width or max(map(sum, rows))
    input_ids = torch.zeros(len(rows), width, dtype=torch.long)
    labels = torch.full_like(input_ids, -100)
    segments, mask = torch.zeros_like(input_ids), torch.zeros_like(input_ids)
    for row, (context, answer, rest) in enumerate(rows):
        length = context + answer + rest
        begin = 0 if side == "right" else width - length
        ids = torch.randint(3, VOCABULARY, (length,), generator=generator)
        input_ids[row, begin : begin + length] = ids
        mask[row, begin : begin + length] = 1
        segments[row, begin + context // 2 : begin + context] = int(Segment.THINKING)
        segments[row, begin + context : begin + context + answer] = int(Segment.ANSWER)
        labels[row, begin + context : begin + context + answer] = ids[context : context + answer]
    return {"input_ids": input_ids, "attention_mask": mask}, labels, segments


ROWS = [(9, 3, 1), (4, 2, 0), (12, 5, 2), (1, 4, 0)]
"""Contexts and answers of different lengths; the last row's context is the token that predicts its answer."""


def gradients(model, loss):
    model.zero_grad()
    loss.backward()
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def by_definition(model, inputs, labels, segments, **options):
    """Loss and gradients of one pass over the whole batch, keys and values of the context detached in each layer."""
    predicts = nn.functional.pad(labels[:, 1:] != -100, (0, 1))
    first = torch.where(predicts.any(1), predicts.int().argmax(1), labels.shape[1])
    _context.append(torch.arange(labels.shape[1])[None] < first[:, None])
    try:
        found = causal_loss(model, inputs, labels, segments, **options)
    finally:
        _context.clear()
    return found, gradients(model, found.loss)


def assert_same(found, expected, rtol=1e-4, atol=2e-6):
    assert found.keys() == expected.keys()
    for name, gradient in found.items():
        torch.testing.assert_close(
            gradient, expected[name], rtol=rtol, atol=atol, msg=lambda text, n=name: f"{n}: {text}"
        )


def difference(found, expected):
    """Norm of the difference of two gradients, relative to the second."""
    norm = sum(expected[name].square().sum() for name in expected).sqrt()
    return float(sum((found[name] - expected[name]).square().sum() for name in expected).sqrt() / norm)


def assert_without_context_grad(model, inputs, labels, segments, **options):
    """Exact loss and statistics, the gradient of the definition, and not the exact one."""
    exact = causal_loss(model, inputs, labels, segments, **options)
    exact_gradients = gradients(model, exact.loss)
    _, expected = by_definition(model, inputs, labels, segments, **options)
    found = causal_loss(model, inputs, labels, segments, context_grad=False, **options)
    torch.testing.assert_close(found.loss, exact.loss, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(found.statistics.loss, exact.statistics.loss, rtol=1e-5, atol=1e-5)
    assert torch.equal(found.statistics.tokens, exact.statistics.tokens)
    assert torch.equal(found.statistics.correct, exact.statistics.correct)
    without = gradients(model, found.loss)
    assert_same(without, expected)
    assert difference(without, exact_gradients) > 0.01
    return found


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_exact_loss_and_the_gradient_of_constant_keys_and_values(architecture, tied):
    model = build(architecture, tie_word_embeddings=tied)
    for seed in (1, 2):  # the first batch finds out how the model is served, and may call it twice
        assert_without_context_grad(model, *batch(ROWS, seed=seed))
    assert _known[model].selection is not False


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@pytest.mark.parametrize("side", ["left", "right"])
def test_padding(attention, side):
    model = build(attn_implementation=attention)
    rows = batch(ROWS, width=23, side=side)
    exact = causal_loss(model, *rows)
    found = causal_loss(model, *rows, context_grad=False)
    torch.testing.assert_close(found.loss, exact.loss, rtol=1e-5, atol=1e-6)
    # A padded row is the row alone.
    total = sum(
        causal_loss(model, *batch_row(rows, index), num_items=14, context_grad=False).loss for index in range(len(ROWS))
    )
    torch.testing.assert_close(found.loss, total, rtol=1e-5, atol=1e-6)
    padded = gradients(model, found.loss)
    total = sum(
        causal_loss(model, *batch_row(rows, index), num_items=14, context_grad=False).loss for index in range(len(ROWS))
    )
    assert_same(padded, gradients(model, total))


def batch_row(rows, index):
    inputs, labels, segments = rows
    real = inputs["attention_mask"][index].bool()
    return {"input_ids": inputs["input_ids"][index, real][None]}, labels[index, real][None], segments[index, real][None]


@pytest.mark.parametrize("side", ["left", "right"])
def test_padding_carries_the_gradient_of_the_definition(side):
    assert_without_context_grad(build(), *batch(ROWS, width=23, side=side))


def test_full_logits_and_weights():
    model = build()
    rows = batch(ROWS)
    weights = torch.tensor([0, 0, 0, 0, 0, 2.5, 0, 0])
    assert_without_context_grad(model, *rows, sparse=False)
    assert_without_context_grad(model, *rows, weights=weights, num_items=7.0)
    # A token of weight 0 isn't trained, whatever its label: it is context.
    inputs, labels, segments = rows
    everywhere = torch.where(segments > 0, inputs["input_ids"], -100)
    found = causal_loss(model, inputs, everywhere, segments, weights=weights, num_items=7.0, context_grad=False)
    expected = causal_loss(model, inputs, labels, segments, weights=weights, num_items=7.0, context_grad=False)
    torch.testing.assert_close(found.loss, expected.loss)
    assert found.statistics.tokens.tolist() == expected.statistics.tokens.tolist()


def test_own_position_ids_are_kept():
    model = build()
    inputs, labels, segments = batch([(6, 2, 0), (4, 4, 0)])
    inputs["position_ids"] = torch.arange(8).repeat(2, 1) * 3
    moved = causal_loss(model, inputs, labels, segments, context_grad=False).loss
    torch.testing.assert_close(moved, causal_loss(model, inputs, labels, segments).loss, rtol=1e-5, atol=1e-6)
    del inputs["position_ids"]
    assert abs(moved - causal_loss(model, inputs, labels, segments).loss) > 1e-4


def test_rows_without_a_label():
    model = build()
    inputs, labels, segments = batch([(5, 3, 0), (8, 0, 0)])
    assert_without_context_grad(model, inputs, labels, segments)
    found = causal_loss(model, inputs, torch.full_like(labels, -100), segments, context_grad=False)
    assert found.loss == 0
    assert not any(gradient.any() for gradient in gradients(model, found.loss).values())


def test_a_label_on_the_first_token_is_predicted_by_nothing():
    model = build()
    inputs, labels, segments = batch([(5, 3, 0), (4, 4, 0)])
    labels[0, 0] = 7
    found = causal_loss(model, inputs, labels, segments, context_grad=False)
    labels[0, 0] = -100
    torch.testing.assert_close(found.loss, causal_loss(model, inputs, labels, segments).loss, rtol=1e-5, atol=1e-6)


def test_runs_only_what_is_needed_with_gradient():
    model = build()
    widths = []
    model.model.layers[0].mlp.register_forward_hook(
        lambda module, inputs, output: widths.append((output.shape[1], output.requires_grad))
    )
    rows = batch(ROWS)
    causal_loss(model, *rows, context_grad=False)
    widths.clear()
    causal_loss(model, *rows, context_grad=False)
    # The longest context without its last token; the longest answer with that token before it. The rest is not run.
    assert widths == [(11, False), (6, True)]


@pytest.mark.parametrize("reentrant", [False, True])
def test_gradient_checkpointing_is_off_for_the_two_passes(reentrant):
    model = build().train()
    rows = batch(ROWS)
    _, expected = by_definition(model, *rows)
    model.gradient_checkpointing_enable({"use_reentrant": reentrant})
    found = causal_loss(model, *rows, context_grad=False)
    assert_same(gradients(model, found.loss), expected)
    # It is on again, for the exact path and for whoever else uses the model.
    assert all(layer.gradient_checkpointing for layer in model.model.layers)


def test_positions_that_fill_up_to_a_multiple_change_nothing(monkeypatch):
    monkeypatch.setattr(context_grad, "_token_multiple", lambda model: 16)
    for side in ("left", "right"):
        assert_without_context_grad(build(), *batch(ROWS, side=side))
    rest, _, _ = after_context(build(), *batch(ROWS))
    assert rest["input_ids"].shape[1] == 16
    assert rest["attention_mask"].shape[1] == 32


def test_autocast_does_not_reuse_weights_that_were_cast_without_gradient():
    model = build()
    rows = batch(ROWS)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        _, expected = by_definition(model, *rows)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = causal_loss(model, *rows, context_grad=False)
    without = gradients(model, found.loss)
    assert without.keys() == expected.keys()
    assert difference(without, expected) < 0.02


@pytest.mark.parametrize("dropout", [0.0, 0.5])
def test_lora(dropout):
    config = peft.LoraConfig(r=2, lora_dropout=dropout, target_modules="all-linear", init_lora_weights=False)
    model = peft.get_peft_model(build(), config).train()
    rows = batch(ROWS)
    if not dropout:
        assert_without_context_grad(model, *rows)
        return
    torch.manual_seed(0)
    first = causal_loss(model, *rows, context_grad=False).loss
    torch.manual_seed(1)
    assert causal_loss(model, *rows, context_grad=False).loss != first
    assert unsupported(model) is None


def test_dropout_is_drawn_for_the_context_too():
    model = build(attention_dropout=0.5).train()
    inputs, labels, segments = batch([(12, 1, 0)])
    keys = []
    for seed in (0, 1):
        torch.manual_seed(seed)
        with without_gradient_checkpointing(model):
            rest, _, _ = after_context(model, inputs, labels, segments)
        keys.append(rest["past_key_values"].layers[-1].keys)
    assert not torch.equal(*keys)
    assert not any(layer.keys.requires_grad for layer in rest["past_key_values"].layers)


def test_a_compiled_model():
    model = build(attn_implementation="sdpa")
    compiled = torch.compile(model, backend="eager")
    for seed in range(3):
        rows = batch(ROWS, seed=seed)
        expected = gradients(model, causal_loss(model, *rows, context_grad=False).loss)
        found = causal_loss(compiled, *rows, context_grad=False)
        assert_same(gradients(model, found.loss), expected)


def test_a_fused_loss_takes_what_remains():
    model = build(attn_implementation="sdpa").train()
    plain = type(model).forward
    seen = []

    def forward(self, input_ids=None, labels=None, num_items_in_batch=None, logits_to_keep=0, **kwargs):
        if labels is not None:
            seen.append(tuple(labels.shape))
            kwargs |= {"labels": labels, "num_items_in_batch": num_items_in_batch}
        return plain(self, input_ids=input_ids, logits_to_keep=logits_to_keep, **kwargs)

    rows = batch(ROWS)
    expected = causal_loss(model, *rows, context_grad=False)
    forward.__module__ = "liger_kernel.transformers.model.qwen3"
    model.__class__ = type("Patched", (type(model),), {"forward": forward})
    found = causal_loss(model, *rows, context_grad=False)
    assert seen == [(4, 6)]
    torch.testing.assert_close(found.loss, expected.loss, rtol=1e-5, atol=1e-6)


def test_the_closed_cache_can_be_used_again():
    cache = ContextCache()
    states = torch.ones(1, 1, 3, 2)
    cache.update(states, states, 0)
    cache.closed = True
    for _ in range(2):
        keys, _ = cache.update(2 * states, states, 0)
        assert keys.shape[-2] == 6
        assert cache.get_seq_length() == 3


def test_packed_rows_and_other_shapes_are_refused():
    model = build()
    inputs, labels, segments = batch([(5, 3, 0)])
    packed = {"input_ids": inputs["input_ids"], "position_ids": torch.tensor([[0, 1, 2, 3, 0, 1, 2, 3]])}
    with pytest.raises(ValueError, match="packed sequences; give each sequence a row of its own"):
        causal_loss(model, packed, labels, segments, context_grad=False)
    square = {**inputs, "attention_mask": torch.ones(1, 1, 8, 8)}
    with pytest.raises(ValueError, match=r"attention_mask has \(1, 1, 8, 8\)"):
        causal_loss(model, square, labels, segments, context_grad=False)
    with pytest.raises(ValueError, match="measure with context_grad"):
        causal_loss(model, inputs, labels, segments, measure=ANSWER, context_grad=False)


@pytest.mark.parametrize(
    ("prefix", "options", "reason"),
    [
        ("Mamba", {"state_size": 4}, "layers of type linear_attention, whose state isn't a plain key-value cache"),
        (
            "Lfm2",
            {"layer_types": ["conv", "full_attention", "conv"], "block_multiple_of": 8},
            "layers of type conv, whose state",
        ),
        ("Qwen3Moe", {"num_experts": 2, "output_router_logits": True}, "the load-balancing loss of Qwen3Moe"),
    ],
)
def test_models_that_cannot_be_served(prefix, options, reason):
    # transformers' own class by name: the package fla puts another one in its place once it is imported.
    config_class = getattr(transformers, f"{prefix}Config")
    model = getattr(transformers, f"{prefix}ForCausalLM")(config_class(**SHAPE | options))
    assert reason in (unsupported(model) or "")


def test_data_parallel_is_refused():
    with pytest.raises(ValueError, match="start one process for each device"):
        causal_loss(nn.DataParallel(build()), *batch(ROWS), context_grad=False)


def test_prompt_tuning_is_refused():
    model = peft.get_peft_model(build(), peft.PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=2))
    assert "puts trained positions before the context" in (unsupported(model) or "")


def test_a_model_that_keeps_no_cache_is_noticed():
    model = build()
    model.model.layers[1].self_attn.forward = lambda hidden_states, **kwargs: (hidden_states, None)
    with pytest.raises(ValueError, match="of 11 positions in 3 layers it kept"):
        causal_loss(model, *batch(ROWS), context_grad=False)


class Rows(torch.utils.data.Dataset):
    """Rows of different lengths as a data set of the trainer."""

    def __init__(self, count=8):
        self.rows = [batch_row(batch([(4 + index, 2 + index % 3, 0)], seed=index), 0) for index in range(count)]

    def __len__(self):
        return len(self.rows)

    def __getitem__(self, index):
        inputs, labels, segments = self.rows[index]
        ids = inputs["input_ids"][0].tolist()
        return {"input_ids": ids, "labels": labels[0].tolist(), "segments": segments[0].tolist()}


class Tokenizer:
    """What the collator needs of one."""

    padding_side = "right"

    def pad(self, features, padding=True, max_length=None, pad_to_multiple_of=None, return_tensors=None):
        width = max(len(row["input_ids"]) for row in features)
        padded = {
            "input_ids": [row["input_ids"] + [0] * (width - len(row["input_ids"])) for row in features],
            "attention_mask": [[1] * len(row["input_ids"]) + [0] * (width - len(row["input_ids"])) for row in features],
        }
        return {name: torch.tensor(values) for name, values in padded.items()}


def trained(folder, *, context_grad, micro_batch=4, accumulation=1, **options):
    model = build()
    trainer = SegmentLossTrainer(
        model=model,
        args=TrainingArguments(
            output_dir=str(folder),
            per_device_train_batch_size=micro_batch,
            gradient_accumulation_steps=accumulation,
            max_steps=3,
            learning_rate=0.1,
            lr_scheduler_type="constant",
            optim="sgd",
            max_grad_norm=0,
            logging_steps=1,
            save_strategy="no",
            report_to=[],
            disable_tqdm=True,
            use_cpu=True,
            **options,
        ),
        train_dataset=Rows(),
        eval_dataset=Rows(),
        data_collator=SegmentCollator(DataCollatorForSeq2Seq(Tokenizer())),
    )
    trainer.configure_segment_loss(context_grad=context_grad)
    trainer.train()
    return trainer


def weights_of(trainer):
    return {name: value.detach().clone() for name, value in trainer.model.named_parameters()}


def test_the_trainer_trains_by_it_and_evaluates_exactly(tmp_path, monkeypatch):
    exact = trained(tmp_path, context_grad=True)
    without = trained(tmp_path, context_grad=False)
    first = [entry for entry in exact.state.log_history if "loss" in entry]
    found = [entry for entry in without.state.log_history if "loss" in entry]
    for name in ("loss", "loss_answer", "acc_answer", "tokens_answer"):
        assert found[0][name] == pytest.approx(first[0][name], rel=1e-4)
    assert found[2]["loss"] != pytest.approx(first[2]["loss"], rel=1e-4)
    import sftkey.training.trainer

    seen = []
    original = sftkey.training.trainer.causal_loss
    monkeypatch.setattr(
        sftkey.training.trainer, "causal_loss", lambda *args, **kwargs: seen.append(kwargs) or original(*args, **kwargs)
    )
    metrics = without.evaluate()
    assert [kwargs["context_grad"] for kwargs in seen] == [True]
    # The thinking is measured in evaluation, which only the whole sequence can do.
    assert metrics["eval_tokens_thinking"] > 0


def test_mixed_precision_of_the_trainer(tmp_path):
    exact, without = (trained(tmp_path, context_grad=context_grad, bf16=True) for context_grad in (True, False))
    losses = [[e["loss"] for e in trainer.state.log_history if "loss" in e] for trainer in (exact, without)]
    assert losses[1][0] == pytest.approx(losses[0][0], rel=0.01)
    assert losses[1][2] < losses[1][0]
    # Accelerate has wrapped `forward`; that it can leave logits out is still seen.
    rows = []
    without.model.lm_head.register_forward_hook(lambda module, inputs, output: rows.append(inputs[0].shape[1]))
    causal_loss(without.model, *batch(ROWS), context_grad=False)
    assert rows[0] == 1


def test_accumulated_micro_batches_are_one_batch(tmp_path):
    whole = trained(tmp_path, context_grad=False)
    parts = trained(tmp_path, context_grad=False, micro_batch=1, accumulation=4)
    assert_same(weights_of(parts), weights_of(whole))


def test_the_trainer_refuses_what_cannot_be_served(tmp_path):
    settings = SHAPE | {"num_experts": 2, "output_router_logits": True}
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model("qwen3_moe", **settings))
    trainer = SegmentLossTrainer(model=model, args=TrainingArguments(output_dir=str(tmp_path), use_cpu=True))
    with pytest.raises(UserError, match="can't be trained without the context gradient: the load-balancing loss"):
        trainer.configure_segment_loss(context_grad=False)


def run_ddp(rank):
    reference = build()
    rows = batch([*ROWS, (7, 2, 0), (3, 0, 0)])
    parts = [tuple(slice_of(part, index) for part in rows) for index in (slice(0, 4), slice(4, 6))]
    labelled = int((rows[1] != -100).sum())
    model = DistributedDataParallel(build())
    for step in range(3):
        # The second process has a row without a label, and in the last step nothing else.
        inputs, labels, segments = parts[rank]
        whole = rows[1].clone()
        num_items = labelled
        if step == 2:
            num_items -= int((parts[1][1] != -100).sum())
            whole[4:] = -100
            if rank == 1:
                labels = torch.full_like(labels, -100)
        _, expected = by_definition(reference, rows[0], whole, rows[2])
        model.zero_grad()
        quiet = model.no_sync() if step == 1 else contextlib.nullcontext()
        with quiet:
            found = causal_loss(model, inputs, labels, segments, num_items=num_items, context_grad=False)
            (found.loss * PROCESSES).backward()
        if step == 1:
            # An accumulated micro-batch: nothing is exchanged before the one after it.
            found = causal_loss(model, inputs, labels, segments, num_items=num_items, context_grad=False)
            (found.loss * PROCESSES).backward()
            expected = {name: 2 * gradient for name, gradient in expected.items()}
        assert_same({name: p.grad for name, p in model.module.named_parameters()}, expected)


def slice_of(part, rows):
    return {name: value[rows] for name, value in part.items()} if isinstance(part, dict) else part[rows]


def run_fsdp(rank):
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    rows = batch([*ROWS, (7, 2, 0), (3, 0, 0)])
    _, expected = by_definition(build(), *rows)
    model = build()
    mesh = init_device_mesh("cpu", (PROCESSES,))
    for layer in model.model.layers:
        fully_shard(layer, mesh=mesh)
    fully_shard(model, mesh=mesh)
    index = (slice(0, 4), slice(4, 6))[rank]
    inputs, labels, segments = (slice_of(part, index) for part in rows)
    num_items = int((rows[1] != -100).sum())
    for _ in range(2):
        model.zero_grad()
        found = causal_loss(model, inputs, labels, segments, num_items=num_items, context_grad=False)
        (found.loss * PROCESSES).backward()
        assert_same({name: p.grad.full_tensor() for name, p in model.named_parameters()}, expected)


@pytest.mark.timeout(180)
def test_ddp_gives_the_gradients_of_all_batches_together():
    in_processes(run_ddp)


@pytest.mark.timeout(180)
def test_fsdp():
    in_processes(run_fsdp)
