"""The chunked output layer with cross-entropy against the plain computation."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from sftkey.training.linear_cross_entropy import (
    checkpointed_cross_entropy,
    chunk_rows,
    is_plain_linear,
    linear_cross_entropy,
)
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

VOCABULARY, WIDTH = 23, 7


def problem(n, seed, bias=False, dtype=torch.float32, vocabulary=VOCABULARY, width=WIDTH):
    generator = torch.Generator().manual_seed(seed)
    head = nn.Linear(width, vocabulary, bias=bias)
    with torch.no_grad():
        for parameter in head.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator))
    hidden = torch.randn(n, width, generator=generator).to(dtype).requires_grad_()
    ids = torch.randint(vocabulary, (n,), generator=generator)
    weights = torch.randint(0, 4, (n,), generator=generator) / 3
    return hidden, head.to(dtype), ids, weights, torch.tensor(2.5)


def gradients(loss, *tensors):
    return torch.autograd.grad(loss, tensors)


@settings(max_examples=60, deadline=None)
@given(n=st.integers(1, 12), rows=st.integers(1, 13), bias=st.booleans(), seed=st.integers(0, 2**16))
def test_equals_the_plain_computation_in_double_precision(n, rows, bias, seed):
    hidden, head, ids, weights, denominator = problem(n, seed, bias)
    found = linear_cross_entropy(hidden, head, ids, weights, denominator, rows=rows)
    # Scaled, as gradient accumulation or a scaler would.
    found_gradients = gradients(3 * found.total, hidden, *head.parameters())

    double = hidden.detach().double().requires_grad_()
    parameters = [parameter.detach().double().requires_grad_() for parameter in head.parameters()]
    logits = F.linear(double, *parameters)
    losses = torch.stack([-logits[i].log_softmax(-1)[ids[i]] for i in range(n)])
    total = (losses * weights).sum() / denominator
    torch.testing.assert_close(found.total, total.float())
    torch.testing.assert_close(found.losses, losses.detach().float())
    assert found.correct.tolist() == [bool(logits[i].argmax() == ids[i]) for i in range(n)]
    for ours, reference in zip(found_gradients, gradients(3 * total, double, *parameters), strict=True):
        torch.testing.assert_close(ours, reference.float())


@pytest.mark.parametrize("rows", [1, 3, 8])
def test_any_layer_in_chunks_equals_the_plain_computation(rows):
    hidden, linear, ids, weights, denominator = problem(8, seed=1, bias=True)
    head = nn.Sequential(linear, nn.Tanh())
    found = checkpointed_cross_entropy(hidden, head, ids, weights, denominator, rows=rows)
    losses = F.cross_entropy(head(hidden), ids, reduction="none")
    torch.testing.assert_close(found.losses, losses.detach())
    expected = gradients((losses * weights).sum() / denominator, hidden, *linear.parameters())
    for ours, reference in zip(gradients(found.total, hidden, *linear.parameters()), expected, strict=True):
        torch.testing.assert_close(ours, reference)


def test_no_target_gives_zero_gradients():
    hidden, head, ids, weights, denominator = problem(0, seed=1, bias=True)
    total = linear_cross_entropy(hidden, head, ids, weights, denominator).total
    total.backward()
    assert total.item() == 0
    assert all(parameter.grad is not None and not parameter.grad.any() for parameter in head.parameters())


def test_frozen_layer_and_frozen_states():
    hidden, head, ids, weights, denominator = problem(5, seed=2)
    everything = gradients(
        linear_cross_entropy(hidden, head, ids, weights, denominator, rows=2).total, hidden, head.weight
    )
    head.requires_grad_(False)
    total = linear_cross_entropy(hidden, head, ids, weights, denominator, rows=2).total
    assert torch.equal(gradients(total, hidden)[0], everything[0])
    head.requires_grad_(True)
    total = linear_cross_entropy(hidden.detach(), head, ids, weights, denominator, rows=2).total
    assert torch.equal(gradients(total, head.weight)[0], everything[1])
    with torch.no_grad():
        total = linear_cross_entropy(hidden, head, ids, weights, denominator, rows=2).total
    assert not total.requires_grad


def test_a_second_backward_pass_is_refused_rather_than_wrong():
    hidden, head, ids, weights, denominator = problem(5, seed=2)
    total = linear_cross_entropy(hidden, head, ids, weights, denominator).total
    (2 * total).backward(retain_graph=True)
    with pytest.raises(RuntimeError, match="differentiated before"):
        total.backward()


def test_chunks_in_bfloat16_are_as_exact_as_the_plain_computation():
    hidden, head, ids, weights, denominator = problem(256, seed=3, dtype=torch.bfloat16)
    exact_head = nn.Linear(WIDTH, VOCABULARY, bias=False, dtype=torch.float64)
    exact_head.load_state_dict({"weight": head.weight.double()})
    losses = F.cross_entropy(exact_head(hidden.double()), ids, reduction="none")
    (exact,) = gradients((losses * weights).sum() / denominator, exact_head.weight)
    losses = F.cross_entropy(head(hidden).float(), ids, reduction="none")
    (plain,) = gradients((losses * weights).sum() / denominator, head.weight)
    (ours,) = gradients(linear_cross_entropy(hidden, head, ids, weights, denominator, rows=4).total, head.weight)
    assert ours.dtype == plain.dtype == torch.bfloat16

    def error(gradient):
        return ((gradient - exact).norm() / exact.norm()).item()

    # 64 chunks: summed in bfloat16 they would be several times worse.
    assert error(ours) < 1.25 * error(plain)


def test_autocast_computes_in_its_type_and_returns_gradients_in_the_parameters_type():
    hidden, head, ids, weights, denominator = problem(9, seed=4)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = linear_cross_entropy(hidden, head, ids, weights, denominator, rows=4)
        losses = F.cross_entropy(head(hidden).float(), ids, reduction="none")
    assert torch.equal(found.losses, losses.detach()) or torch.allclose(found.losses, losses.detach(), atol=1e-6)
    ours = gradients(found.total, hidden, head.weight)
    plain = gradients((losses * weights).sum() / denominator, hidden, head.weight)
    for found_gradient, expected in zip(ours, plain, strict=True):
        assert found_gradient.dtype == torch.float32
        torch.testing.assert_close(found_gradient, expected, rtol=0.02, atol=0.02)


class LargestTensor(TorchDispatchMode):
    """The number of elements of the largest tensor that any operation gave."""

    numel = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        for tensor in result if isinstance(result, tuple | list) else [result]:
            if isinstance(tensor, torch.Tensor):
                self.numel = max(self.numel, tensor.numel())
        return result


@pytest.mark.parametrize("function", [linear_cross_entropy, checkpointed_cross_entropy])
def test_no_more_logits_than_a_chunks_exist(function):
    hidden, head, ids, weights, denominator = problem(64, seed=5, vocabulary=997)
    with LargestTensor() as largest:
        total = function(hidden, head, ids, weights, denominator, rows=8).total
        total.backward()
    assert largest.numel == 8 * 997
    assert head.weight.numel() < largest.numel < 64 * 997


def test_chunk_of_a_wide_model_takes_half_the_memory_of_the_layers_gradient():
    assert chunk_rows(4096) == 2048
    assert chunk_rows(64) == 512


def test_plain_linear_layers_are_told_from_others():
    hidden = torch.zeros(1, WIDTH)

    class Quantised(nn.Linear):
        pass

    assert is_plain_linear(nn.Linear(WIDTH, 3), hidden)
    assert not is_plain_linear(Quantised(WIDTH, 3), hidden)
    assert not is_plain_linear(nn.utils.parametrizations.weight_norm(nn.Linear(WIDTH, 3)), hidden)
    assert not is_plain_linear(nn.Linear(WIDTH, 3).half(), hidden.half())
    assert not is_plain_linear(nn.Linear(WIDTH, 3).bfloat16(), hidden)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert is_plain_linear(nn.Linear(WIDTH, 3), hidden.bfloat16())
