"""The loss of a batch against a brute-force computation from full logits."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sftkey.format.segments import RESPONSE, Segment
from sftkey.training.loss import causal_loss
from sftkey.training.sparse_logits import _known
from sftkey.training.targets import find_targets
from transformers import Qwen3Config, Qwen3ForCausalLM, Qwen3MoeConfig, Qwen3MoeForCausalLM

VOCABULARY = 61
SHAPE = {
    "vocab_size": VOCABULARY,
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 8,
    "max_position_embeddings": 64,
}


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return Qwen3ForCausalLM(Qwen3Config(**SHAPE))


def batch(seed, size=2, length=11, share=0.5):
    generator = torch.Generator().manual_seed(seed)
    input_ids = torch.randint(VOCABULARY, (size, length), generator=generator)
    trained = torch.rand(size, length, generator=generator) < share
    labels = torch.where(trained, input_ids, -100)
    # A trained token is never of the prompt.
    segments = torch.where(trained, torch.randint(1, 8, (size, length), generator=generator), 0)
    return input_ids, labels, segments


def brute_force(model, input_ids, labels, segments, weights=None, measure=frozenset()):
    """One token after the other: weighted sum of losses, total weight, and the sums per segment."""
    logits = model(input_ids=input_ids).logits.double()
    total, weight_sum = logits.sum() * 0, 0.0
    statistics = [[0.0, 0, 0] for _ in Segment]
    for b in range(input_ids.shape[0]):
        for t in range(1, input_ids.shape[1]):
            segment = int(segments[b, t])
            weight = 1.0 if weights is None else float(weights[segment])
            trained = labels[b, t] != -100 and weight > 0
            if not trained and segment not in measure:
                continue
            loss = -logits[b, t - 1].log_softmax(-1)[input_ids[b, t]]
            if trained:
                total, weight_sum = total + weight * loss, weight_sum + weight
            statistics[segment][0] += loss.item()
            statistics[segment][1] += 1
            statistics[segment][2] += int(logits[b, t - 1].argmax() == input_ids[b, t])
    return total, weight_sum, statistics


def gradients(model, loss):
    model.zero_grad()
    loss.backward()
    return [parameter.grad.clone() for parameter in model.parameters()]


def assert_statistics(found, expected):
    losses, tokens, correct = zip(*expected, strict=True)
    torch.testing.assert_close(found.loss, torch.tensor(losses, dtype=torch.float32))
    assert found.tokens.tolist() == list(tokens)
    assert found.correct.tolist() == list(correct)


SEGMENT_WEIGHTS = st.none() | st.lists(st.sampled_from([0.0, 0.2, 1.0, 3.0]), min_size=8, max_size=8)


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 2**16),
    share=st.sampled_from([0.0, 0.05, 0.5, 1.0]),
    weights=SEGMENT_WEIGHTS,
    measure=st.frozensets(st.sampled_from(sorted(RESPONSE))),
    sparse=st.booleans(),
)
def test_loss_gradients_and_statistics_equal_brute_force(model, seed, share, weights, measure, sparse):
    input_ids, labels, segments = batch(seed, share=share)
    weights = None if weights is None else torch.tensor(weights)
    found = causal_loss(
        model, {"input_ids": input_ids}, labels, segments, weights=weights, measure=measure, sparse=sparse
    )
    total, weight_sum, statistics = brute_force(model, input_ids, labels, segments, weights, measure)
    expected = total / (weight_sum or 1)
    torch.testing.assert_close(found.loss, expected.float())
    assert_statistics(found.statistics, statistics)
    for ours, reference in zip(gradients(model, found.loss), gradients(model, expected), strict=True):
        torch.testing.assert_close(ours, reference, rtol=1e-4, atol=1e-6)


@settings(max_examples=50, deadline=None)
@given(seed=st.integers(0, 2**16), size=st.integers(1, 3), length=st.integers(1, 6), weights=SEGMENT_WEIGHTS)
def test_targets_are_the_positions_before_labelled_tokens(seed, size, length, weights):
    input_ids, labels, segments = batch(seed, size, length)
    tensor = None if weights is None else torch.tensor(weights)
    found = find_targets(input_ids, labels, segments, tensor, frozenset({Segment.THINKING}))
    expected = []
    for b in range(size):
        for t in range(1, length):
            segment = int(segments[b, t])
            weight = (1.0 if weights is None else weights[segment]) * bool(labels[b, t] != -100)
            if weight or segment == Segment.THINKING:
                expected.append((b * length + t - 1, int(input_ids[b, t]), weight, segment))
    found_rows = zip(
        found.rows.tolist(), found.ids.tolist(), found.weights.tolist(), found.segments.tolist(), strict=True
    )
    assert [(row, token, pytest.approx(weight), segment) for row, token, weight, segment in expected] == list(
        found_rows
    )


@pytest.mark.parametrize("sparse", [True, False])
def test_equals_the_models_own_loss(model, sparse):
    input_ids, labels, segments = batch(1)
    own = model(input_ids=input_ids, labels=labels).loss
    found = causal_loss(model, {"input_ids": input_ids}, labels, segments, sparse=sparse)
    torch.testing.assert_close(found.loss, own)
    assert found.loss.dtype == torch.float32
    assert found.loss.shape == ()


def test_logits_are_in_the_output_only_where_they_are_those_of_the_batch(model):
    input_ids, labels, segments = batch(1)
    assert "logits" not in causal_loss(model, {"input_ids": input_ids}, labels, segments).outputs
    full = causal_loss(model, {"input_ids": input_ids}, labels, segments, sparse=False).outputs
    assert torch.equal(full.logits, model(input_ids=input_ids).logits)


@pytest.mark.parametrize("sparse", [True, False])
def test_no_labelled_position_gives_a_zero_loss_with_zero_gradients(model, sparse):
    input_ids, labels, segments = batch(1)
    for num_items in (None, 0, 17):
        found = causal_loss(
            model, {"input_ids": input_ids}, torch.full_like(labels, -100), segments, num_items=num_items, sparse=sparse
        )
        assert found.loss.item() == 0
        assert not any(gradient.any() for gradient in gradients(model, found.loss))
        assert not found.statistics.tokens.any()


@pytest.mark.parametrize("weighted", [False, True])
def test_micro_batches_with_num_items_sum_to_one_batch(model, weighted):
    input_ids, labels, segments = batch(2, size=4)
    labels[1] = -100
    weights = torch.tensor([0, 0.2, 0.2, 1, 1, 3, 1, 0.5]) if weighted else None
    whole = causal_loss(model, {"input_ids": input_ids}, labels, segments, weights=weights)
    expected = gradients(model, whole.loss)
    num_items = brute_force(model, input_ids, labels, segments, weights)[1]
    model.zero_grad()
    losses, statistics = 0.0, []
    for row in range(4):
        part = slice(row, row + 1)
        found = causal_loss(
            model, {"input_ids": input_ids[part]}, labels[part], segments[part], weights=weights, num_items=num_items
        )
        found.loss.backward()
        losses += found.loss.item()
        statistics.append(found.statistics)
    assert losses == pytest.approx(whole.loss.item(), rel=1e-5)
    sums = statistics[0] + statistics[1] + statistics[2] + statistics[3]
    torch.testing.assert_close(sums.loss, whole.statistics.loss)
    assert torch.equal(sums.tokens, whole.statistics.tokens)
    assert torch.equal(sums.correct, whole.statistics.correct)
    for parameter, reference in zip(model.parameters(), expected, strict=True):
        torch.testing.assert_close(parameter.grad, reference, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("sparse", [True, False])
def test_binary_weights_are_the_masked_loss_bit_for_bit(model, sparse):
    input_ids, labels, segments = batch(3, share=1.0)
    kept = [Segment.ANSWER, Segment.END_OF_TURN]
    weights = torch.zeros(8)
    weights[kept] = 1
    masked = torch.where(torch.isin(segments, torch.tensor(kept)), labels, -100)
    weighted = causal_loss(model, {"input_ids": input_ids}, labels, segments, weights=weights, sparse=sparse)
    plain = causal_loss(model, {"input_ids": input_ids}, masked, segments, sparse=sparse)
    assert torch.equal(weighted.loss, plain.loss)
    for ours, reference in zip(gradients(model, weighted.loss), gradients(model, plain.loss), strict=True):
        assert torch.equal(ours, reference)


def test_measured_tokens_change_neither_loss_nor_gradients(model):
    input_ids, labels, segments = batch(4)
    segments[0, 5:] = Segment.THINKING
    labels[0, 5:] = -100
    plain = causal_loss(model, {"input_ids": input_ids}, labels, segments)
    measured = causal_loss(model, {"input_ids": input_ids}, labels, segments, measure=RESPONSE)
    torch.testing.assert_close(measured.loss, plain.loss)
    assert measured.statistics.tokens[Segment.THINKING] == plain.statistics.tokens[Segment.THINKING] + 6
    for ours, reference in zip(gradients(model, measured.loss), gradients(model, plain.loss), strict=True):
        torch.testing.assert_close(ours, reference, rtol=1e-4, atol=1e-7)


def test_loss_of_a_uniform_prediction_is_the_logarithm_of_the_vocabulary(model):
    input_ids, labels, segments = batch(5)
    weight = model.lm_head.weight.detach().clone()
    with torch.no_grad():
        model.lm_head.weight.zero_()
        found = causal_loss(model, {"input_ids": input_ids}, labels, segments)
        model.lm_head.weight.copy_(weight)
    assert found.loss.item() == pytest.approx(math.log(VOCABULARY))


def test_without_segments_there_are_no_statistics(model):
    input_ids, labels, segments = batch(6)
    found = causal_loss(model, {"input_ids": input_ids}, labels, None)
    torch.testing.assert_close(found.loss, causal_loss(model, {"input_ids": input_ids}, labels, segments).loss)
    assert not found.statistics.tokens.any()


def test_errors_name_what_is_missing(model):
    input_ids, labels, segments = batch(7)
    inputs = {"input_ids": input_ids}
    with pytest.raises(ValueError, match="`segments` is None"):
        causal_loss(model, inputs, labels, None, weights=torch.ones(8))
    with pytest.raises(ValueError, match="`segments` is None"):
        causal_loss(model, inputs, labels, None, measure=RESPONSE)
    with pytest.raises(ValueError, match="prompt"):
        causal_loss(model, inputs, labels, segments, measure=frozenset({Segment.PROMPT}))
    embeddings = {"inputs_embeds": model.get_input_embeddings()(input_ids)}
    with pytest.raises(ValueError, match="input_ids"):
        causal_loss(model, embeddings, labels, segments, measure=RESPONSE)
    torch.testing.assert_close(
        causal_loss(model, embeddings, labels, segments).loss, causal_loss(model, inputs, labels, segments).loss
    )


def test_router_loss_is_added_as_the_model_itself_adds_it():
    torch.manual_seed(0)
    experts = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 8, "output_router_logits": True}
    model = Qwen3MoeForCausalLM(Qwen3MoeConfig(**SHAPE, **experts, router_aux_loss_coef=0.1))
    input_ids, labels, segments = batch(8)
    own = model(input_ids=input_ids, labels=labels).loss
    without = model(input_ids=input_ids, labels=labels, output_router_logits=False).loss
    assert own > without + 0.01
    found = causal_loss(model, {"input_ids": input_ids}, labels, segments).loss
    torch.testing.assert_close(found, own)
    expected = gradients_by_name(model, own)
    for name, gradient in gradients_by_name(model, found).items():
        torch.testing.assert_close(gradient, expected[name], rtol=1e-4, atol=1e-6)
    assert _known[model].loss_in_head


@pytest.mark.parametrize("regulariser", ["router", "z"])
def test_what_a_model_adds_does_not_grow_with_micro_batches(regulariser):
    """Two micro-batches of one step add the mean of their router or z-losses, by labelled tokens, and not their sum."""
    torch.manual_seed(0)
    if regulariser == "router":
        experts = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 8, "output_router_logits": True}
        model = Qwen3MoeForCausalLM(Qwen3MoeConfig(**SHAPE, **experts, router_aux_loss_coef=0.5))
    else:
        model = Qwen3ForCausalLM(Qwen3Config(**SHAPE))
        model.config.z_loss_coefficient = 0.5
    parts = [batch(seed) for seed in (8, 9)]
    counts = [(labels[:, 1:] != -100).sum() for _, labels, _ in parts]
    assert counts[0] != counts[1]
    with_it, alone = 0.0, []
    for input_ids, labels, segments in parts:
        with_it += causal_loss(model, {"input_ids": input_ids}, labels, segments, num_items=sum(counts)).loss
        alone.append(causal_loss(model, {"input_ids": input_ids}, labels, segments).loss)
    expected = sum(count * loss for count, loss in zip(counts, alone, strict=True)) / sum(counts)
    torch.testing.assert_close(with_it, expected)


def gradients_by_name(model, loss):
    model.zero_grad()
    loss.backward()
    return {name: parameter.grad.clone() for name, parameter in model.named_parameters() if parameter.grad is not None}
