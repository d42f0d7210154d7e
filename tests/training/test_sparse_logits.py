"""Sparse logits against the standard path: architectures, wrappers, and models that can't be served."""

import logging
import re

import peft
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sftkey.format.segments import Segment
from sftkey.training.loss import causal_loss
from sftkey.training.sparse_logits import _known, fused_loss, unwrap
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM

VOCABULARY = 67
SHAPE = {
    "vocab_size": VOCABULARY,
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 8,
    "max_position_embeddings": 64,
    "initializer_range": 0.3,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "attn_implementation": "sdpa",
}
UNTOUCHED = {"qwen2": {}, "qwen3": {}, "llama": {}, "smollm3": {}, "mistral": {}}
"""Architectures whose logits are the output layer's output: the whole loss moves into the layer."""
CHANGED = {
    "gemma2": {"final_logit_softcapping": 5.0, "attn_implementation": "eager"},  # its newest code refuses sdpa
    "gemma3_text": {"final_logit_softcapping": 5.0},
    "granite": {"logits_scaling": 3.0},
    "cohere": {"logit_scale": 0.25},
}
"""Architectures that cap or scale logits afterwards, with a setting that makes a difference."""


def build(architecture, **options):
    torch.manual_seed(0)
    specific = UNTOUCHED.get(architecture, {}) | CHANGED.get(architecture, {})
    config = AutoConfig.for_model(architecture, **SHAPE | specific | options)
    return AutoModelForCausalLM.from_config(config)


def batch(seed=0, size=2, length=13, share=0.4):
    generator = torch.Generator().manual_seed(seed)
    input_ids = torch.randint(3, VOCABULARY, (size, length), generator=generator)
    trained = torch.rand(size, length, generator=generator) < share
    trained[:, 0] = False
    labels = torch.where(trained, input_ids, -100)
    return {"input_ids": input_ids}, labels, torch.where(trained, int(Segment.ANSWER), 0)


def gradients(model, loss):
    model.zero_grad()
    loss.backward()
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def assert_same(found, expected, rtol=1e-4, atol=1e-6):
    assert found.keys() == expected.keys()
    for name, gradient in found.items():
        torch.testing.assert_close(
            gradient, expected[name], rtol=rtol, atol=atol, msg=lambda text, n=name: f"{n}: {text}"
        )


def assert_equals_own_loss(model, inputs, labels, segments, rtol=1e-5, **tolerances):
    """Loss and gradients equal those of the model's own loss over full logits; returns what was found."""
    own = model(**inputs, labels=labels).loss.float()
    found = causal_loss(model, inputs, labels, segments)
    torch.testing.assert_close(found.loss, own, rtol=rtol, atol=1e-6)
    expected = gradients(model, own)
    assert_same(gradients(model, found.loss), expected, **tolerances)
    return found


@pytest.fixture
def head_rows(monkeypatch):
    """Number of rows of every linear layer as wide as the vocabulary that was computed."""
    rows = []
    original = nn.functional.linear

    def linear(x, weight, bias=None):
        if weight.shape[0] == VOCABULARY:
            rows.append(x.numel() // x.shape[-1])
        return original(x, weight, bias)

    monkeypatch.setattr(nn.functional, "linear", linear)
    return rows


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("architecture", [*UNTOUCHED, *CHANGED])
def test_every_architecture_has_the_same_loss_and_gradients(architecture, tied, head_rows, caplog):
    model = build(architecture, tie_word_embeddings=tied)
    assert (model.get_output_embeddings().weight is model.get_input_embeddings().weight) == tied
    for seed in (1, 2):  # the first batch finds out how the model is served
        inputs, labels, segments = batch(seed)
        assert_equals_own_loss(model, inputs, labels, segments)
    targets = int((labels != -100).sum())
    head_rows.clear()
    causal_loss(model, inputs, labels, segments)
    assert head_rows == [targets]
    assert _known[model].loss_in_head == (architecture in UNTOUCHED)
    assert not [record for record in caplog.records if record.name.startswith("sftkey")]


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("architecture", ["qwen3", "gemma2"])
def test_padded_batches(architecture, side):
    model = build(architecture)
    inputs, labels, segments = batch(3, size=3)
    mask = torch.ones_like(labels)
    for row, length in enumerate((13, 9, 4)):
        padding = slice(0, 13 - length) if side == "left" else slice(length, 13)
        mask[row, padding], labels[row, padding] = 0, -100
    inputs["attention_mask"] = mask
    assert_equals_own_loss(model, inputs, labels, segments)


def test_packed_batches_equal_their_sequences_apart():
    model = build("qwen3")
    parts = [batch(seed, size=1, length=length) for seed, length in ((1, 5), (2, 9), (3, 3))]
    packed = {
        "input_ids": torch.cat([inputs["input_ids"] for inputs, _, _ in parts], dim=1),
        "position_ids": torch.cat([torch.arange(labels.shape[1]) for _, labels, _ in parts])[None],
        "use_cache": False,  # else transformers doesn't look for packed sequences
    }
    labels, segments = (torch.cat([part[i] for part in parts], dim=1) for i in (1, 2))
    num_items = int((labels != -100).sum())
    found = causal_loss(model, packed, labels, segments)
    apart = sum(causal_loss(model, *part, num_items=num_items).loss for part in parts)
    torch.testing.assert_close(found.loss, apart)
    assert_same(gradients(model, found.loss), gradients(model, apart))


@settings(max_examples=40, deadline=None)
@given(mask=st.lists(st.lists(st.booleans(), min_size=6, max_size=6), min_size=1, max_size=3))
def test_random_masks(mask):
    model = random_mask_model()
    trained = torch.tensor(mask)
    inputs, labels, segments = batch(4, size=len(mask), length=6)
    labels = torch.where(trained, inputs["input_ids"], -100)
    if not trained[:, 1:].any():
        found = causal_loss(model, inputs, labels, segments).loss
        assert found.item() == 0
        assert not any(gradient.any() for gradient in gradients(model, found).values())
    else:
        assert_equals_own_loss(model, inputs, labels, segments)


def random_mask_model(models=[]):  # noqa: B006 (built once)
    if not models:
        models.append(build("smollm3"))
    return models[0]


def test_bfloat16_is_as_exact_as_the_standard_path():
    inputs, labels, segments = batch(5, size=4, length=40, share=0.8)
    model = build("qwen3")
    exact = gradients(model, model(**inputs, labels=labels).loss)
    model = model.to(torch.bfloat16)
    own = model(**inputs, labels=labels).loss
    found = causal_loss(model, inputs, labels, segments)
    assert found.loss.dtype == torch.float32
    torch.testing.assert_close(found.loss, own.float(), rtol=1e-4, atol=1e-4)
    plain, ours = gradients(model, own), gradients(model, found.loss)
    for name, reference in exact.items():
        error, plain_error = ((g[name].float() - reference).norm() for g in (ours, plain))
        assert ours[name].dtype == torch.bfloat16
        assert error <= 1.2 * plain_error + 1e-3 * reference.norm(), name


@pytest.mark.parametrize("architecture", ["qwen3", "gemma2"])
def test_autocast(architecture):
    model = build(architecture)
    inputs, labels, segments = batch(6)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        own = model(**inputs, labels=labels).loss
        found = causal_loss(model, inputs, labels, segments).loss
    assert _known[model].loss_in_head == (architecture in UNTOUCHED)
    torch.testing.assert_close(found, own.float(), rtol=1e-3, atol=1e-3)
    expected = gradients(model, own)
    for name, gradient in gradients(model, found).items():
        assert gradient.dtype == torch.float32
        assert (gradient - expected[name]).norm() <= 0.03 * expected[name].norm() + 1e-4, name


@pytest.mark.parametrize("reentrant", [False, True])
def test_gradient_checkpointing(reentrant):
    model = build("qwen3")
    inputs, labels, segments = batch(7)
    expected = gradients(model, model(**inputs, labels=labels).loss)
    model.gradient_checkpointing_enable({"use_reentrant": reentrant})
    model.train()
    for _ in range(2):
        assert_same(gradients(model, causal_loss(model, inputs, labels, segments).loss), expected)


LORA = {
    "layers": {"target_modules": ["q_proj", "v_proj"]},
    "layers and head": {"target_modules": ["q_proj", "lm_head"]},
    "added tokens": {"target_modules": ["q_proj"], "modules_to_save": ["embed_tokens", "lm_head"]},
}


@pytest.mark.parametrize("options", LORA.values(), ids=LORA)
def test_lora(options, monkeypatch, caplog):
    model = peft.get_peft_model(build("qwen3"), peft.LoraConfig(r=2, init_lora_weights=False, **options))
    inputs, labels, segments = batch(8)
    assert_equals_own_loss(model, inputs, labels, segments)
    assert unwrap(model) is model.base_model.model
    assert _known[unwrap(model)].loss_in_head
    # The same batch once it is longer than a chunk, and once it is empty.
    assert_equals_own_loss(model, inputs, labels, segments)
    monkeypatch.setattr("sftkey.training.sparse_logits.chunk_rows", lambda width: 2)
    monkeypatch.setattr("sftkey.training.linear_cross_entropy.chunk_rows", lambda width: 2)
    assert_equals_own_loss(model, inputs, labels, segments)
    found = causal_loss(model, inputs, torch.full_like(labels, -100), segments).loss
    assert not any(gradient.any() for gradient in gradients(model, found).values())
    assert not [record for record in caplog.records if record.name.startswith("sftkey")]


@pytest.mark.parametrize("options", LORA.values(), ids=LORA)
def test_first_batch_without_targets(options):
    model = peft.get_peft_model(build("gemma2"), peft.LoraConfig(r=2, init_lora_weights=False, **options))
    inputs, labels, segments = batch(8)
    found = causal_loss(model, inputs, torch.full_like(labels, -100), segments).loss
    trained = gradients(model, found)
    assert trained
    assert not any(gradient.any() for gradient in trained.values())
    assert_equals_own_loss(model, inputs, labels, segments)


def test_compiled_model_is_not_compiled_again_for_every_number_of_targets(head_rows):
    graphs = []

    def backend(graph, example_inputs):
        graphs.append(graph)
        return graph.forward

    model = build("qwen3")
    compiled = torch.compile(model, backend=backend)
    for seed in range(6):
        inputs, labels, segments = batch(seed)
        own = model(**inputs, labels=labels).loss
        head_rows.clear()
        found = causal_loss(compiled, inputs, labels, segments).loss
        assert head_rows == [int((labels != -100).sum())]
        torch.testing.assert_close(found, own)
        if seed == 1:
            compiled_so_far = len(graphs)
    assert len(graphs) == compiled_so_far


def test_a_compiled_model_has_one_graph_break_and_none_in_one_piece(head_rows, caplog):
    inputs, labels, segments = batch(3)
    model = build("qwen3")
    own = model(**inputs, labels=labels).loss
    expected = gradients(model, own)
    positions = labels.numel()
    for fullgraph, breaks, rows in ((False, 1, int((labels != -100).sum())), (True, 0, positions)):
        torch._dynamo.reset()
        torch._dynamo.utils.counters.clear()
        compiled = torch.compile(model, backend="eager", fullgraph=fullgraph)
        head_rows.clear()
        found = causal_loss(compiled, inputs, labels, segments)
        # By place: dynamo meets it once in each of the decorators' frames around the model's forward.
        assert len(torch._dynamo.utils.counters["graph_break"]) == breaks
        torch.testing.assert_close(found.loss, own)
        assert_same(gradients(model, found.loss), expected)
        assert found.statistics.tokens.sum() == (labels != -100).sum()
        assert head_rows[-1] == rows
    (message,) = [record.getMessage() for record in caplog.records if record.name.startswith("sftkey")]
    assert "is compiled with fullgraph=True" in message
    causal_loss(compiled, inputs, labels, segments)
    assert len([record for record in caplog.records if record.name.startswith("sftkey")]) == 1


def test_hooks_of_the_output_layer_run():
    model = build("qwen3")
    inputs, labels, segments = batch(9)
    calls = []
    model.lm_head.register_forward_pre_hook(lambda *_: calls.append("before"))
    model.lm_head.register_forward_hook(lambda *_: calls.append("after"))
    model.lm_head.register_full_backward_hook(lambda *_: calls.append("backward"))
    causal_loss(model, inputs, labels, segments).loss.backward()
    assert calls == ["before", "after", "backward"]


def test_the_model_is_left_as_it_was(monkeypatch):
    model = build("qwen3")
    inputs, labels, segments = batch(9)
    before = model(**inputs).logits
    causal_loss(model, inputs, labels, segments)
    assert "forward" not in model.lm_head.__dict__
    own = model.lm_head.forward
    model.lm_head.forward = own  # as accelerate's device hooks do
    causal_loss(model, inputs, labels, segments)
    assert model.lm_head.__dict__["forward"] is own
    monkeypatch.setattr(model.model, "forward", lambda *_, **__: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        causal_loss(model, inputs, labels, segments)
    assert model.lm_head.__dict__["forward"] is own
    monkeypatch.undo()
    assert torch.equal(model(**inputs).logits, before)


def needs_every_position(model):
    """A model whose code after the output layer insists on the shape of the batch."""
    plain = type(model).forward

    class Insists(type(model)):
        def forward(self, input_ids, **kwargs):
            outputs = plain(self, input_ids, **kwargs)
            outputs.logits = outputs.logits.view(*input_ids.shape, VOCABULARY)
            return outputs

    model.__class__ = Insists
    return "needs logits at every position"


def shards_the_sequence(model):
    """As under context parallelism: the output layer sees a part, the model returns the whole."""
    head = model.lm_head
    plain = type(model).forward

    class Shards(type(model)):
        def forward(self, *args, **kwargs):
            whole = []
            hook = head.register_forward_pre_hook(lambda _, args: whole.append(args[0]) or (args[0][:, ::2],))
            outputs = plain(self, *args, **kwargs)
            hook.remove()
            outputs.logits = nn.functional.linear(whole[0], head.weight)
            return outputs

    model.__class__ = Shards
    return "was not called with hidden states of shape (2, 13"


def names_no_output_layer(model):
    model.get_output_embeddings = lambda: None
    return "names no output layer"


def bends_some_logits(model):
    """A model that forbids some token: the loss can't move into the layer, selecting rows still works."""
    plain = type(model).forward

    class Bends(type(model)):
        def forward(self, *args, labels=None, **kwargs):
            outputs = plain(self, *args, **kwargs)
            bias = torch.zeros(VOCABULARY)
            bias[0] = -5.0
            outputs.logits = outputs.logits + bias
            if labels is not None:
                outputs.loss = self.loss_function(outputs.logits, labels, VOCABULARY)
            return outputs

    model.__class__ = Bends


@pytest.mark.parametrize("change", [needs_every_position, shards_the_sequence, names_no_output_layer])
def test_a_model_that_cannot_be_served_takes_the_standard_path_and_says_so_once(change, caplog):
    model = build("qwen3")
    inputs, labels, segments = batch(10)
    own = model(**inputs, labels=labels).loss
    expected = gradients(model, own)
    message = change(model)
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            found = causal_loss(model, inputs, labels, segments)
            torch.testing.assert_close(found.loss, own)
            assert_same(gradients(model, found.loss), expected)
            assert found.statistics.tokens.sum() == (labels != -100).sum()
    assert [message in record.getMessage() for record in caplog.records] == [True]


def test_a_model_that_bends_logits_of_single_tokens(head_rows):
    model = build("qwen3")
    bends_some_logits(model)
    inputs, labels, segments = batch(11)
    assert_equals_own_loss(model, inputs, labels, segments)
    head_rows.clear()
    causal_loss(model, inputs, labels, segments)
    assert head_rows == [int((labels != -100).sum())]


def test_a_z_loss_over_all_positions_is_part_of_the_loss(caplog):
    mamba = {"mamba_n_heads": 4, "mamba_d_head": 8, "mamba_d_state": 4, "mamba_n_groups": 1, "mamba_chunk_size": 8}
    model = build("bamba", attn_layer_indices=[1], z_loss_coefficient=0.2, **mamba)
    inputs, labels, segments = batch(16)
    own = model(**inputs, labels=labels).loss.detach()
    model.z_loss_coefficient = 0.0
    assert own > model(**inputs, labels=labels).loss + 0.1
    model.z_loss_coefficient = 0.2
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            found = assert_equals_own_loss(model, inputs, labels, segments)
    assert found.statistics.tokens.sum() == (labels != -100).sum()
    said = [record.getMessage() for record in caplog.records if record.name.startswith("sftkey")]
    assert said == ["BambaForCausalLM has a z-loss: logits are computed at every position"]


def test_a_loss_that_is_no_number_is_not_taken_for_a_changed_one(head_rows):
    model = build("qwen3")
    with torch.no_grad():
        model.model.norm.weight[0] = float("nan")
    inputs, labels, segments = batch(17)
    assert causal_loss(model, inputs, labels, segments).loss.isnan()
    # One call: a second attempt in one process alone would leave the others waiting.
    assert head_rows == [int((labels != -100).sum())]
    assert _known[model].loss_in_head


def test_an_error_of_the_model_itself_is_raised():
    model = build("qwen3")
    inputs, labels, segments = batch(12)
    inputs["input_ids"][0, 0] = VOCABULARY
    with pytest.raises(IndexError):
        causal_loss(model, inputs, labels, segments)
    inputs, labels, segments = batch(12)
    causal_loss(model, inputs, labels, segments)
    labels[0, 5] = VOCABULARY
    with pytest.raises((IndexError, RuntimeError)):
        causal_loss(model, inputs, labels, segments)


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20 GiB"),
        RuntimeError("CUDA error: an illegal memory access was encountered"),
        RuntimeError("DefaultCPUAllocator: can't allocate memory: out of memory"),
        torch.distributed.DistBackendError("NCCL communicator was aborted"),
        RuntimeError("Triton Error [CUDA]: out of resource"),
        RuntimeError("[gloo/transport/tcp/pair.cc:534] Connection closed by peer"),
    ],
)
def test_an_error_of_the_machine_is_no_need_for_logits(error, monkeypatch, caplog):
    """After the output layer, on the first batch: where the shape of logits would show, and isn't what is wrong."""
    model = build("qwen3")
    plain = type(model).forward
    calls = []

    def forward(self, *args, **kwargs):
        calls.append(plain(self, *args, **kwargs))
        raise error

    monkeypatch.setattr(type(model), "forward", forward)
    inputs, labels, segments = batch(12)
    with pytest.raises(type(error), match=re.escape(str(error))):
        causal_loss(model, inputs, labels, segments)
    assert len(calls) == 1
    assert not caplog.records
    monkeypatch.undo()
    causal_loss(model, inputs, labels, segments)
    assert _known[model].loss_in_head


def patched(module):
    """A model with a fused loss in its ``forward``, and the calls that this loss got."""
    model = build("qwen3")
    plain = type(model).forward
    calls = []

    def forward(self, *args, labels=None, num_items_in_batch=None, **kwargs):
        if labels is None:
            return plain(self, *args, **kwargs)
        calls.append(labels)
        outputs = plain(self, *args, labels=labels, num_items_in_batch=num_items_in_batch, **kwargs)
        outputs.logits = None
        return outputs

    forward.__module__ = module
    model.__class__ = type("Patched", (type(model),), {"forward": forward})
    return model.train(), calls


@pytest.mark.parametrize(
    ("module", "name"),
    [
        ("liger_kernel.transformers.model.qwen3", "Liger"),
        ("axolotl.integrations.liger.models.base", "Liger"),
        ("cut_cross_entropy.transformers.llama", "Cut Cross Entropy"),
    ],
)
@pytest.mark.parametrize("wrap", [lambda m: m, nn.parallel.DataParallel, lambda m: torch.compile(m, backend="eager")])
def test_a_fused_loss_keeps_working(module, name, wrap, caplog):
    model, calls = patched(module)
    inputs, labels, segments = batch(13)
    weights = torch.zeros(8)
    weights[Segment.ANSWER] = 1
    reference = causal_loss(build("qwen3"), inputs, labels, segments, num_items=50).loss
    assert name in fused_loss(wrap(model))
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            found = causal_loss(wrap(model), inputs, labels, segments, weights=weights, num_items=50)
    torch.testing.assert_close(found.loss, reference)
    expected = labels.clone()
    expected[:, 0] = -100
    assert len(calls) == 2
    assert torch.equal(calls[0], expected)
    assert not found.statistics.tokens.any()
    assert len([record for record in caplog.records if name in record.getMessage()]) == 1


def test_a_fused_loss_is_left_aside_for_what_it_cannot_do():
    model, calls = patched("liger_kernel.transformers.model.qwen3")
    inputs, labels, segments = batch(14)
    weights = torch.full((8,), 0.5)
    assert causal_loss(model, inputs, labels, segments, weights=weights).statistics.tokens.any()
    measured = causal_loss(model, inputs, labels, segments, measure=frozenset({Segment.ANSWER}))
    assert measured.statistics.tokens.any()
    empty = causal_loss(model, inputs, torch.full_like(labels, -100), segments).loss
    assert not any(gradient.any() for gradient in gradients(model, empty).values())
    assert causal_loss(model.eval(), inputs, labels, segments).statistics.tokens.any()
    assert not calls


def test_the_real_patch_of_liger_is_recognised(monkeypatch):
    liger = pytest.importorskip("liger_kernel.transformers", reason="Liger is not installed")
    model = build("qwen3")
    monkeypatch.setattr(type(model), "forward", type(model).forward)  # put back afterwards, whatever Liger patches
    off = dict.fromkeys(("rope", "rms_norm", "swiglu", "cross_entropy"), False)
    liger.apply_liger_kernel_to_qwen3(**off, fused_linear_cross_entropy=True, model=model)
    assert "Liger" in fused_loss(model)
    # Its kernels need a GPU; what is left aside for our own path doesn't.
    inputs, labels, segments = batch(15)
    found = causal_loss(model.eval(), inputs, labels, segments).loss
    torch.testing.assert_close(found, causal_loss(build("qwen3"), inputs, labels, segments).loss)


def test_models_without_a_fused_loss_are_not_mistaken():
    model = build("qwen3")
    assert fused_loss(model) is None
    assert fused_loss(peft.get_peft_model(model, peft.LoraConfig(target_modules=["q_proj"]))) is None
