"""The loss in two processes: DDP, FSDP, and DeepSpeed ZeRO-3 where it is installed. Gloo, on the CPU."""

import importlib.util
from types import SimpleNamespace

import pytest
import torch
import torch.distributed as dist
from sftkey.format.segments import RESPONSE, Segment
from sftkey.training.loss import causal_loss
from sftkey.training.objectives.registry import OBJECTIVES, read_objective
from sftkey.training.sparse_logits import _known
from sftkey.training.step_loss import StepLoss
from support.processes import PROCESSES, in_processes
from support.small_models import small_model
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor
from torch.nn.parallel import DistributedDataParallel

VOCABULARY = 41
EAGER = {"attn_implementation": "eager"}  # of Gemma 2, whose newest code refuses sdpa
CASES = {
    "untied": {"model_type": "qwen3", "tie_word_embeddings": False},
    "tied": {"model_type": "qwen3", "tie_word_embeddings": True},
    "softcap": {"model_type": "gemma2", "tie_word_embeddings": True, "final_logit_softcapping": 5.0} | EAGER,
}
"""Two models whose loss moves into the output layer, one that is found to change logits on the first batch."""


def build(case):
    return build_from(CASES[case])


def build_from(settings):
    # Checkpointing runs a layer twice, which would fill a cache twice.
    return small_model(VOCABULARY, **settings, use_cache=False)


def batches():
    """Three batches for each process; in the first and in the last, one of them has no label at all."""
    generator = torch.Generator().manual_seed(0)
    input_ids = torch.randint(3, VOCABULARY, (3, PROCESSES, 2, 9), generator=generator)
    trained = torch.rand(input_ids.shape, generator=generator) < 0.4
    trained[..., 0] = False
    trained[0, 1] = trained[2, 0] = False
    return input_ids, torch.where(trained, input_ids, -100), trained.long() * int(Segment.ANSWER)


def expected(case):
    """Loss and gradients of every step, from the model's own loss over all batches of the step."""
    model = build(case)
    steps = []
    for input_ids, labels, _ in zip(*batches(), strict=True):
        model.zero_grad()
        loss = model(input_ids=input_ids.flatten(0, 1), labels=labels.flatten(0, 1)).loss
        loss.backward()
        steps.append((loss.detach(), {name: p.grad.clone() for name, p in model.named_parameters()}))
    return steps


def run_ddp(rank, case):
    reference = expected(case)
    model = DistributedDataParallel(build(case))
    for step, (input_ids, labels, segments) in enumerate(zip(*batches(), strict=True)):
        num_items = int((labels[..., 1:] != -100).sum())
        model.zero_grad()
        found = causal_loss(model, {"input_ids": input_ids[rank]}, labels[rank], segments[rank], num_items=num_items)
        assert found.statistics.tokens.sum() == (labels[rank] != -100).sum()
        # DDP averages gradients over processes; the loss is normalised over all of them.
        (found.loss * PROCESSES).backward()
        total = found.loss.detach().clone()
        dist.all_reduce(total)
        torch.testing.assert_close(total, reference[step][0], rtol=1e-4, atol=1e-6)
        for name, parameter in model.module.named_parameters():
            torch.testing.assert_close(parameter.grad, reference[step][1][name], rtol=1e-4, atol=1e-6)
    assert _known[model.module].loss_in_head == (case != "softcap")
    if case == "untied":
        # All but those that are no objective of their own; Rho-1 ranks a process's batch by itself, or each sequence.
        names = [{"name": name} for name, kind in OBJECTIVES.items() if not kind.plain and name != "rho-1"]
        for name in (*names, {"name": "rho-1", "within": "sequence"}, {"name": "sft-go", "groups": "segments"}):
            run_objective(rank, model, read_objective(name))
        run_experts(rank)


def run_experts(rank):
    """The router loss of each process counts with its share of the labelled tokens, and not once more for each process."""
    experts = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 8, "output_router_logits": True}
    untied = CASES["untied"] | {"model_type": "qwen3_moe", "router_aux_loss_coef": 0.5} | experts
    reference, model = build_from(untied), DistributedDataParallel(build_from(untied), find_unused_parameters=True)
    for input_ids, labels, segments in zip(*batches(), strict=True):
        num_items = int((labels[..., 1:] != -100).sum())
        for one in (reference, model):
            one.zero_grad()
        total = 0.0
        for ids, own in zip(input_ids, labels, strict=True):
            items = int((own[:, 1:] != -100).sum())
            if items:
                total = total + reference(input_ids=ids, labels=own).loss * items / num_items
        total.backward()
        found = causal_loss(model, {"input_ids": input_ids[rank]}, labels[rank], segments[rank], num_items=num_items)
        (found.loss * PROCESSES).backward()
        loss = found.loss.detach().clone()
        dist.all_reduce(loss)
        torch.testing.assert_close(loss, total.detach(), rtol=1e-4, atol=1e-6)
        for name, parameter in model.module.named_parameters():
            own = reference.get_parameter(name).grad
            expected = torch.zeros_like(parameter) if own is None else own
            torch.testing.assert_close(parameter.grad, expected, rtol=1e-4, atol=1e-6)


def run_objective(rank, model, objective):
    """The step of both processes is that of one process with all rows."""
    input_ids, labels, _ = batches()
    generator = torch.Generator().manual_seed(1)
    segments = torch.randint(2, 6, labels.shape, generator=generator)
    columns = {name: 4 * torch.rand(labels.shape, generator=generator) for name in ("reference_loss", "short_loss")}
    columns |= {name: torch.rand(labels.shape, generator=generator) for name in ("excess_rank", "tf_idf")}
    logprobs = torch.randn((*labels.shape, VOCABULARY), generator=generator).log_softmax(-1)
    columns["anchor_logprobs"], columns["anchor_ids"] = logprobs.topk(8, dim=-1)
    own = {"segments": segments, "labels": labels, "input_ids": input_ids, **columns}
    own = {name: value[0] for name, value in own.items()}
    items = StepLoss(objective=objective).items({name: value[rank] for name, value in own.items()}, 0.0)
    dist.all_reduce(items)
    options = {"num_items": items, "objective": objective}
    steps = {}
    for part, where in (("all", slice(None)), ("own", slice(rank, rank + 1))):
        rows = {name: value[where].flatten(0, 1) for name, value in own.items()}
        known = {name: rows[name] for name in columns}
        used, scale = (model.module, 1) if part == "all" else (model, PROCESSES)
        model.zero_grad()
        loss = causal_loss(
            used, {"input_ids": rows["input_ids"]}, rows["labels"], rows["segments"], columns=known, **options
        ).loss
        (loss * scale).backward()
        steps[part] = loss.detach().clone(), [p.grad.clone() for p in model.module.parameters()]
    dist.all_reduce(steps["own"][0])
    torch.testing.assert_close(steps["own"][0], steps["all"][0], rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(steps["own"][1], steps["all"][1], rtol=1e-4, atol=1e-6)


def run_fsdp(rank, case):
    reference = expected(case)
    model = build(case)
    mesh = init_device_mesh("cpu", (PROCESSES,))
    for layer in model.model.layers:
        fully_shard(layer, mesh=mesh)
    fully_shard(model, mesh=mesh)
    head = model.get_output_embeddings()
    assert isinstance(head.weight, DTensor)
    for step, (input_ids, labels, segments) in enumerate(zip(*batches(), strict=True)):
        num_items = int((labels[..., 1:] != -100).sum())
        model.zero_grad()
        found = causal_loss(model, {"input_ids": input_ids[rank]}, labels[rank], segments[rank], num_items=num_items)
        (found.loss * PROCESSES).backward()
        for name, parameter in model.named_parameters():
            gradient = parameter.grad.full_tensor()
            torch.testing.assert_close(gradient, reference[step][1][name], rtol=1e-4, atol=1e-6)
    assert _known[model].loss_in_head == (case != "softcap")


def shard_as_axolotl(rank, model, checkpointing=False):
    """FSDP2 with accelerate's plugin for bf16, by Axolotl's own function: parameters, gradients and output in bfloat16."""
    from accelerate.utils import FullyShardedDataParallelPlugin
    from axolotl.monkeypatch.accelerate.fsdp2 import fsdp2_prepare_model

    plugin = FullyShardedDataParallelPlugin(
        fsdp_version=2,
        auto_wrap_policy="transformer_based_wrap",
        activation_checkpointing=checkpointing,
        cpu_ram_efficient_loading=False,
        mixed_precision_policy="bf16",
    )
    assert plugin.mixed_precision_policy.output_dtype == torch.bfloat16
    state = SimpleNamespace(fsdp_plugin=plugin, device_mesh=None)
    accelerator = SimpleNamespace(state=state, mixed_precision="bf16", is_main_process=rank == 0, device="cpu")
    sharded = fsdp2_prepare_model(accelerator, model)
    # Without a name in the recipe: the layers that the model's own code names.
    assert all(any(isinstance(part, FSDPModule) for part in layer.modules()) for layer in sharded.model.layers)
    return sharded


def run_axolotls_fsdp2(rank, case, autocast, checkpointing):
    sparse, dense = (shard_as_axolotl(rank, build(case), checkpointing) for _ in range(2))
    assert isinstance(sparse.get_output_embeddings().weight, DTensor)
    for input_ids, labels, segments in zip(*batches(), strict=True):
        num_items = int((labels[..., 1:] != -100).sum())
        losses = []
        for model in (sparse, dense):
            model.zero_grad()
            with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
                inputs = {"input_ids": input_ids[rank]}
                found = causal_loss(
                    model, inputs, labels[rank], segments[rank], num_items=num_items, sparse=model is sparse
                )
            assert found.loss.dtype == torch.float32
            # No power of two: a gradient of this scale is rounded in bfloat16.
            (found.loss * PROCESSES / 3).backward()
            losses.append(found.loss.item())
        if losses[0]:
            assert losses[0] != torch.tensor(losses[0]).bfloat16().item(), "the loss went through bfloat16"
        torch.testing.assert_close(losses[0], losses[1], rtol=2e-3, atol=1e-5)
        others = dict(dense.named_parameters())
        for name, parameter in sparse.named_parameters():
            gradient, other = parameter.grad.full_tensor(), others[name].grad.full_tensor()
            assert (gradient - other).norm() <= 0.02 * other.norm() + 1e-5, name
        with torch.no_grad():
            sparse.eval()
            evaluated = causal_loss(sparse, inputs, labels[rank], segments[rank], measure=RESPONSE)
            sparse.train()
        assert evaluated.loss.dtype == torch.float32
    assert _known[sparse].loss_in_head == (case != "softcap")


def run_without_context_grad(rank, autocast, fp8):
    """The context gradient left out under Axolotl's FSDP2, against one process in fp32 (or in 8 bits) with all rows."""
    from torchao.float8 import Float8LinearConfig, convert_to_float8_training

    reference, model = build("untied"), build("untied")
    positions = []
    if fp8:
        # The output layer stays as it is, as accelerate has it. Emulated: the CPU has no kernel that counts positions.
        for one in (reference, model):
            options = {
                "config": Float8LinearConfig(emulate=True),
                "module_filter_fn": lambda _, name: name != "lm_head",
            }
            convert_to_float8_training(one, **options)
        projections = model.model.layers[0].mlp.gate_proj, model.model.layers[0].self_attn.k_proj
        for module in projections:
            module.register_forward_pre_hook(lambda _, args: positions.append(args[0].shape[:2].numel()))
    model = shard_as_axolotl(rank, model)
    for input_ids, labels, segments in zip(*batches(), strict=True):
        num_items = int((labels[..., 1:] != -100).sum())
        whole = {"input_ids": input_ids.flatten(0, 1)}, labels.flatten(0, 1), segments.flatten(0, 1)
        expected, exact = {}, {}
        for gradients, context_grad in ((exact, True), (expected, False)):
            reference.zero_grad()
            all_rows = causal_loss(reference, *whole, context_grad=context_grad)
            all_rows.loss.backward()
            gradients.update({name: p.grad.clone() for name, p in reference.named_parameters()})
        model.zero_grad()
        positions.clear()
        rows = {"input_ids": input_ids[rank]}, labels[rank], segments[rank]
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            found = causal_loss(model, *rows, num_items=num_items, context_grad=False)
        (found.loss * PROCESSES).backward()
        total = found.loss.detach().clone()
        dist.all_reduce(total)
        torch.testing.assert_close(total, all_rows.loss.detach(), rtol=0.05 if fp8 else 0.01, atol=1e-4)
        ours = {name: p.grad.full_tensor().float() for name, p in model.named_parameters()}
        norm = sum(gradient.square().sum() for gradient in expected.values()).sqrt()

        def beside(gradients, ours=ours, norm=norm):
            return sum((gradients[name] - ours[name]).square().sum() for name in ours).sqrt() / norm

        # Each process scales its 8 bits by its own rows.
        assert beside(expected) < (0.3 if fp8 else 0.03)
        assert beside(exact) > (1 if fp8 else 2) * beside(expected), "the exact gradient"
        # A context and what remains, in both layers; 8-bit kernels take 16 positions at a time.
        assert [count % 16 for count in positions] == ([0] * 4 if fp8 else [])
    assert _known[model].loss_in_head


def run_zero3(rank, case):
    import deepspeed
    from deepspeed.utils import safe_get_full_grad

    config = {
        "train_micro_batch_size_per_gpu": 2,
        "zero_optimization": {"stage": 3, "stage3_param_persistence_threshold": 0},
        "optimizer": {"type": "SGD", "params": {"lr": 0.0}},
        "zero_allow_untested_optimizer": True,
    }
    reference = expected(case)
    engine, *_ = deepspeed.initialize(model=build(case), config=config)
    head = engine.module.get_output_embeddings()
    assert head.weight.numel() == 0, "the output layer's weights are not partitioned"
    for step, (input_ids, labels, segments) in enumerate(zip(*batches(), strict=True)):
        num_items = int((labels[..., 1:] != -100).sum())
        found = causal_loss(engine, {"input_ids": input_ids[rank]}, labels[rank], segments[rank], num_items=num_items)
        engine.backward(found.loss * PROCESSES)
        total = found.loss.detach().clone()
        dist.all_reduce(total)
        torch.testing.assert_close(total, reference[step][0], rtol=1e-4, atol=1e-6)
        for name, parameter in engine.module.named_parameters():
            torch.testing.assert_close(
                safe_get_full_grad(parameter).cpu(), reference[step][1][name], rtol=1e-4, atol=1e-6
            )
        engine.step()
    assert _known[engine.module].loss_in_head == (case != "softcap")


def in_each_case(rank, function):
    for case in CASES:
        function(rank, case)


@pytest.mark.timeout(180)
def test_ddp_gives_the_gradients_of_all_batches_together():
    in_processes(in_each_case, run_ddp)


@pytest.mark.timeout(180)
def test_fsdp_gathers_the_output_layer():
    in_processes(in_each_case, run_fsdp)


def as_axolotl_shards(rank):
    run_axolotls_fsdp2(rank, "untied", autocast=False, checkpointing=False)
    run_axolotls_fsdp2(rank, "untied", autocast=True, checkpointing=True)
    run_axolotls_fsdp2(rank, "tied", autocast=True, checkpointing=False)
    run_axolotls_fsdp2(rank, "tied", autocast=False, checkpointing=True)
    run_axolotls_fsdp2(rank, "softcap", autocast=True, checkpointing=True)
    # In the same processes, which take their time to import Axolotl.
    run_without_context_grad(rank, autocast=False, fp8=False)
    run_without_context_grad(rank, autocast=True, fp8=False)
    run_without_context_grad(rank, autocast=True, fp8=True)


@pytest.mark.timeout(300)
def test_fsdp2_in_bfloat16_as_axolotl_shards():
    pytest.importorskip("axolotl")
    in_processes(as_axolotl_shards)


@pytest.mark.deepspeed
@pytest.mark.timeout(600)
@pytest.mark.skipif(importlib.util.find_spec("deepspeed") is None, reason="needs deepspeed: make test-deepspeed")
def test_zero3_gathers_the_output_layer():
    in_processes(in_each_case, run_zero3)
