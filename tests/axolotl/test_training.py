"""The loss that Axolotl's own data path leads to: padded, packed and accumulated batches, key-tag too."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from support.axolotl_recipes import build

pytestmark = [pytest.mark.filterwarnings("ignore"), pytest.mark.usefixtures("fresh_axolotl")]


def totals(trainer: Any) -> tuple[torch.Tensor, torch.Tensor]:
    """Summed loss and token count of each segment over one pass of the training data, as the trainer computes them."""
    from sftkey.training.loss import causal_loss

    trainer.model.eval()
    loss, tokens = torch.zeros(8, dtype=torch.float64), torch.zeros(8, dtype=torch.int64)
    with torch.no_grad():
        for batch in trainer.get_train_dataloader():
            inputs = {name: value for name, value in batch.items() if name not in ("labels", "segments")}
            statistics = causal_loss(trainer.model, inputs, batch["labels"], batch["segments"]).statistics
            loss += statistics.loss.double()
            tokens += statistics.tokens
    return loss, tokens


def row_by_row(trainer: Any) -> tuple[torch.Tensor, torch.Tensor]:
    """The same from full logits of one row at a time, with nothing of ours but the labels and segments."""
    loss, tokens = torch.zeros(8, dtype=torch.float64), torch.zeros(8, dtype=torch.int64)
    trainer.model.eval()
    with torch.no_grad():
        for row in trainer.train_dataset:
            ids = torch.tensor([row["input_ids"]])
            logprobs = trainer.model(input_ids=ids).logits.double().log_softmax(-1)
            for position, label in enumerate(row["labels"]):
                if label != -100:
                    loss[row["segments"][position]] -= logprobs[0, position - 1, label]
                    tokens[row["segments"][position]] += 1
    return loss, tokens


@pytest.mark.parametrize("method", ["sft-tag", "key-tag"])
@pytest.mark.parametrize("packed", [False, True], ids=["padded", "packed"])
def test_segment_sums_equal_those_of_single_rows(
    stage1_recipe: dict[str, Any], tmp_path: Path, method: str, packed: bool
) -> None:
    recipe = {**stage1_recipe, "sftkey_method": method}
    if packed:
        recipe |= {"sample_packing": True, "pad_to_sequence_len": True, "sequence_len": 256, "micro_batch_size": 2}
        recipe |= {"dataset_num_proc": 1, "sample_packing_mp_start_method": "fork"}
    trainer = build(recipe, tmp_path)
    expected_loss, expected_tokens = row_by_row(trainer)
    loss, tokens = totals(trainer)
    if packed:
        # The packing sampler drops the last bins that don't fill a batch: compare means, after seeing most tokens.
        assert tokens.sum() > 0.7 * expected_tokens.sum()
        expected_loss, expected_tokens = packed_rows(trainer)
    assert tokens.tolist() == expected_tokens.tolist()
    torch.testing.assert_close(loss, expected_loss, rtol=1e-5, atol=1e-4)


def packed_rows(trainer: Any) -> tuple[torch.Tensor, torch.Tensor]:
    """Full logits of single rows again, for exactly the rows that the packed batches hold."""
    loss, tokens = torch.zeros(8, dtype=torch.float64), torch.zeros(8, dtype=torch.int64)
    with torch.no_grad():
        for batch in trainer.get_train_dataloader():
            for ids, labels, segments, positions in zip(
                batch["input_ids"], batch["labels"], batch["segments"], batch["position_ids"], strict=True
            ):
                starts = [index for index, position in enumerate(positions.tolist()) if position == 0]
                for start, end in zip(starts, [*starts[1:], len(ids)], strict=True):
                    logprobs = trainer.model(input_ids=ids[None, start:end]).logits.double().log_softmax(-1)[0]
                    for index in range(start, end):
                        if labels[index] != -100:
                            assert index > start
                            loss[segments[index]] -= logprobs[index - start - 1, labels[index]]
                            tokens[segments[index]] += 1
    return loss, tokens


def gradients(trainer: Any, micro_batch: int) -> dict[str, torch.Tensor]:
    """Gradients of one optimizer step over eight rows in micro-batches, by the trainer's own training_step."""
    trainer.model.zero_grad()
    rows = [trainer.train_dataset[index] for index in range(8)]
    batches = [trainer.data_collator(rows[start : start + micro_batch]) for start in range(0, 8, micro_batch)]
    trainer.current_gradient_accumulation_steps = len(batches)
    count = trainer._get_num_items_in_batch(batches, torch.device("cpu"))
    for batch in batches:
        trainer.training_step(trainer.model, batch, count)
    return {name: p.grad.clone() for name, p in trainer.model.named_parameters() if p.grad is not None}


def test_accumulation_weighs_tokens_not_micro_batches(
    stage1_recipe: dict[str, Any], tiny_root: Path, tmp_path: Path
) -> None:
    # Answers of very different lengths, so that a mean of micro-batch means would be another gradient.
    rows = [
        {"question": "How?", "thinking": "So.", "answer": "red " * (1 if index % 2 else 12) + "box"}
        for index in range(8)
    ]
    import json

    data = tmp_path / "uneven.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    recipe = {**stage1_recipe, "sftkey_method": "key-tag", "shuffle_merged_datasets": False}
    recipe["datasets"] = [{"path": str(data), "type": "sftkey.datasets.columns"}]
    trainer = build(recipe, tmp_path)
    whole, single = gradients(trainer, 8), gradients(trainer, 1)
    assert whole.keys() == single.keys()
    for name in whole:
        torch.testing.assert_close(single[name], whole[name], rtol=1e-4, atol=1e-6)
    # By hand, from full logits.
    trainer.model.zero_grad()
    total, count = torch.zeros(()), 0
    for row in trainer.train_dataset:
        logits = trainer.model(input_ids=torch.tensor([row["input_ids"]])).logits[0, :-1]
        labels = torch.tensor(row["labels"][1:])
        total = total + torch.nn.functional.cross_entropy(logits, labels, reduction="sum", ignore_index=-100)
        count += int((labels != -100).sum())
    (total / count).backward()
    for name, parameter in trainer.model.named_parameters():
        torch.testing.assert_close(single[name], parameter.grad, rtol=1e-4, atol=1e-6)


def test_warmup_in_epochs(stage1_recipe: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from sftkey.axolotl import trainer_setup

    said: list[str] = []
    monkeypatch.setattr(trainer_setup.LOG, "warning", lambda text, *values: said.append(text % values))
    # 64 rows, 4 x 2 a step: 8 steps an epoch.
    cases = (
        (3, None, 0.5, 4),
        (5, None, 0.5, 4),
        (3, 10, 0.5, 4),
        (3, 1, 0.5, 4),
        (1, None, 1, 8),
        (3, None, 0.125, 1),
        (1, None, 0, 0),
    )
    for epochs, max_steps, warmup, steps in cases:
        recipe = {**stage1_recipe, "num_epochs": epochs, "sftkey_warmup_epochs": warmup}
        if max_steps:
            recipe["max_steps"] = max_steps
        trainer = build(recipe, tmp_path)
        assert trainer.args.get_warmup_steps(trainer.args.max_steps) == steps
        assert [text for text in said if "gets to 25% of learning_rate" in text] == said
        assert bool(said) is (max_steps == 1)
        said.clear()


def test_axolotl_sees_its_own_collator_and_our_count(
    stage1_recipe: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Axolotl 0.21 balances labels by the collator's type, and counts tokens by itself under tensor parallelism."""
    from axolotl.core.trainers.base import AxolotlTrainer
    from sftkey.training.collator import SegmentCollator

    seen = []

    def sampler(self: Any, *_: Any) -> None:
        seen.append(self.data_collator)

    monkeypatch.setattr(AxolotlTrainer, "_get_train_sampler", sampler)
    monkeypatch.setattr(AxolotlTrainer, "_get_num_items_in_batch", lambda *_: 0, raising=False)
    trainer = build(stage1_recipe, tmp_path)
    trainer._get_train_sampler()
    assert isinstance(trainer.data_collator, SegmentCollator)
    assert seen == [trainer.data_collator.collator]
    for collator in (trainer.data_collator, copy.deepcopy(trainer.data_collator)):
        for name in ("tokenizer", "pad_to_multiple_of", "label_pad_token_id", "padding"):
            assert getattr(collator, name) == getattr(collator.collator, name)
    with pytest.raises(AttributeError, match="nothing_of_the_kind"):
        _ = trainer.data_collator.nothing_of_the_kind
    batch = trainer.data_collator([trainer.train_dataset[0]])
    count = trainer._get_num_items_in_batch([batch], torch.device("cpu"))
    assert count == (batch["labels"][:, 1:] != -100).sum() > 0


def test_a_checkpoint_knows_the_end_of_the_turn(stage1_recipe: dict[str, Any], tmp_path: Path) -> None:
    trainer = build(stage1_recipe, tmp_path)
    tokenizer = trainer.processing_class
    end = tokenizer.convert_tokens_to_ids("<|im_end|>")
    base_end = tokenizer.convert_tokens_to_ids("<|endoftext|>")
    assert end != base_end
    assert tokenizer.eos_token_id == trainer.model.config.eos_token_id == end
    assert trainer.model.generation_config.eos_token_id == [end, base_end]


def test_tags_as_added_tokens(stage1_recipe: dict[str, Any], tmp_path: Path) -> None:
    from sftkey.format.formats import THINKING_ANSWER

    trainer = build({**stage1_recipe, "sftkey_tags": "tokens"}, tmp_path)
    tokenizer = trainer.processing_class
    assert trainer.model.get_input_embeddings().num_embeddings >= len(tokenizer)
    for row in trainer.train_dataset:
        for tag, segment in zip(THINKING_ANSWER.tags, (1, 3, 4, 6), strict=True):
            tokens = [token for token, its in zip(row["input_ids"], row["segments"], strict=True) if its == segment]
            assert tokens == [tokenizer.convert_tokens_to_ids(tag)]


def test_stages_do_not_share_prepared_labels(stage1_recipe: dict[str, Any], tmp_path: Path) -> None:
    labelled = {}
    for method in ("sft-tag", "key-tag", "sft-tag"):
        trainer = build({**stage1_recipe, "sftkey_method": method}, tmp_path)
        count = sum(label != -100 for row in trainer.train_dataset for label in row["labels"])
        assert labelled.setdefault(method, count) == count
    assert labelled["key-tag"] < labelled["sft-tag"]


def test_rows_that_cannot_be_used(stage1_recipe: dict[str, Any], tmp_path: Path) -> None:
    import json

    from sftkey.axolotl.strategy import ROWS_FILE
    from sftkey.util.errors import UserError

    good = {"question": "q", "thinking": "t", "answer": "a"}
    rows = [
        good,
        {**good, "thinking": "it says <Answer>4"},
        {**good, "answer": "4<|im_end|>"},
        {**good, "answer": None},
        {**good, "answer": " "},
        {**good, "thinking": ""},
        {**good, "question": ""},
        {**good, "thinking": "long " * 500},
        {**good, "question": "what does <Answer> mean?"},
    ]
    data = tmp_path / "rows.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    recipe = {**stage1_recipe, "datasets": [{"path": str(data), "type": "sftkey.datasets.columns"}]}
    trainer = build(recipe, tmp_path)
    assert len(trainer.train_dataset) == 2
    (path,) = (tmp_path / "prepared").rglob(ROWS_FILE)
    (counts,) = json.loads(path.read_text()).values()
    assert counts == {
        "rows_used": 2,
        "rows_skipped": {
            "tag in the text": 1,
            "special token in the text": 1,
            "missing field: answer": 1,
            "no answer": 1,
            "empty thinking": 1,
            "empty question": 1,
            "longer than sequence_len": 1,
        },
    }
    data.write_text("".join(json.dumps(row) + "\n" for row in rows[3:7]))
    with pytest.raises(UserError, match="none of its 4 rows can be used"):
        build(recipe, tmp_path)
    data.write_text(json.dumps({"question": "q", "cot": "t", "answer": "a"}))
    with pytest.raises(UserError, match="no column 'thinking' in the data; it has: answer, cot, question"):
        build(recipe, tmp_path)
    renamed = build({**recipe, "sftkey_columns": {"thinking": "cot"}}, tmp_path)
    assert len(renamed.train_dataset) == 1


def test_a_row_of_exactly_sequence_len_is_whole(stage1_recipe: dict[str, Any], tmp_path: Path) -> None:
    import json

    data = tmp_path / "rows.jsonl"
    rows = [{"question": "q", "thinking": "so " * count, "answer": "a"} for count in range(1, 7)]
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    stage1_recipe["datasets"] = [{"path": str(data), "type": "sftkey.datasets.columns"}]
    lengths = [len(row["input_ids"]) for row in build(stage1_recipe, tmp_path).train_dataset]
    longest = max(lengths)
    assert lengths.count(longest) == 1
    for sequence_len, count in ((longest, 6), (longest - 1, 5)):
        trainer = build({**stage1_recipe, "sequence_len": sequence_len}, tmp_path)
        assert len(trainer.train_dataset) == count
        end_of_turn = trainer.processing_class.eos_token_id
        assert all(row["labels"][-1] == end_of_turn for row in trainer.train_dataset)


def test_data_of_ours_without_the_plugin(stage1_recipe: dict[str, Any], tmp_path: Path) -> None:
    from sftkey.util.errors import UserError

    del stage1_recipe["plugins"], stage1_recipe["default_system_message"]
    with pytest.raises(UserError, match=r"type sftkey\.datasets\.columns needs the plugin; add `plugins: \[sftkey"):
        build(stage1_recipe, tmp_path)


def test_segment_weights_and_schedule(stage1_recipe: dict[str, Any], tmp_path: Path) -> None:
    recipe = {**stage1_recipe, "sftkey_segment_weights": {"thinking": 0.25, "format": 1, "answer": 2}}
    trainer = build(recipe, tmp_path)
    rows = [trainer.train_dataset[index] for index in range(4)]
    batch = trainer.data_collator(rows)
    count = trainer._get_num_items_in_batch([batch], torch.device("cpu"))
    trainer.current_gradient_accumulation_steps = 1
    loss = trainer.training_step(trainer.model, dict(batch), count)
    # By hand: each token's cross-entropy from full logits times its segment's weight, over the sum of the weights.
    weight = {1: 1.0, 2: 0.25, 3: 1.0, 4: 1.0, 5: 2.0, 6: 1.0, 7: 1.0}
    total = weights = 0.0
    with torch.no_grad():
        for row in rows:
            logprobs = trainer.model(input_ids=torch.tensor([row["input_ids"]])).logits[0].double().log_softmax(-1)
            for position, (token, segment) in enumerate(zip(row["input_ids"], row["segments"], strict=True)):
                if segment:
                    total -= weight[segment] * float(logprobs[position - 1, token])
                    weights += weight[segment]
    assert float(count) == pytest.approx(weights)
    assert float(loss) == pytest.approx(total / weights, rel=1e-5)

    recipe = {**stage1_recipe, "sftkey_segment_schedule": {"thinking": 0}}
    trainer = build(recipe, tmp_path)
    trainer.state.max_steps = 8
    seen = []
    for step in (0, 7):
        trainer.state.global_step = step
        seen.append(trainer.segment_weights().tolist())
    assert seen == [[0, 1, 1, 1, 1, 1, 1, 1], [0, 0, 0, 0, 1, 1, 1, 1]]


def test_sparse_logits_are_on_by_default_and_can_be_turned_off(stage1_recipe: dict[str, Any], tmp_path: Path) -> None:
    key = {**stage1_recipe, "sftkey_method": "key-tag"}
    losses, positions = [], []
    for recipe in (key, {**key, "sftkey_sparse_logits": False}):
        trainer = build(recipe, tmp_path)
        batch = trainer.data_collator([trainer.train_dataset[index] for index in range(4)])
        targets, everywhere = int((batch["labels"] != -100).sum()), batch["labels"].numel()
        seen: list[int] = []
        original = torch.nn.functional.linear
        size = trainer.model.get_output_embeddings().weight.shape[0]

        def linear(
            x: Any, weight: Any, bias: Any = None, original: Any = original, seen: Any = seen, size: int = size
        ) -> Any:
            if weight.shape[0] == size:
                seen.append(x.numel() // x.shape[-1])
            return original(x, weight, bias)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(torch.nn.functional, "linear", linear)
            losses.append(float(trainer.compute_loss(trainer.model.train(), dict(batch), num_items_in_batch=targets)))
        positions.append(seen)
    assert positions == [[targets], [everywhere]]
    assert targets < everywhere / 3
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)


def brute_force(model: torch.nn.Module, rows: Any, groups: dict[str, set[int]]) -> dict[str, float]:
    """Mean loss and token count of named groups of segments, and the accuracy on the answer, one row at a time."""
    loss, tokens, correct = dict.fromkeys(groups, 0.0), dict.fromkeys(groups, 0), 0
    model.eval()
    with torch.no_grad():
        for row in rows:
            logits = model(input_ids=torch.tensor([row["input_ids"]])).logits[0].double()
            for position, (token, segment) in enumerate(zip(row["input_ids"], row["segments"], strict=True)):
                for name, group in groups.items():
                    if segment in group:
                        loss[name] -= float(logits[position - 1].log_softmax(-1)[token])
                        tokens[name] += 1
                correct += segment == 5 and int(logits[position - 1].argmax()) == token
    found = {f"loss_{name}": loss[name] / tokens[name] for name in groups}
    return found | {f"tokens_{name}": tokens[name] for name in groups} | {"acc_answer": correct / tokens["answer"]}


def test_what_is_logged_in_training(stage1_recipe: dict[str, Any], tmp_path: Path) -> None:
    for method, groups in (
        ("sft-tag", {"thinking": {2}, "answer": {5}, "format": {1, 3, 4, 6, 7}}),
        ("key-tag", {"answer": {5}, "format": {4, 6, 7}}),
    ):
        trainer = build({**stage1_recipe, "sftkey_method": method}, tmp_path)
        rows = [trainer.train_dataset[index] for index in range(12)]
        batches = [trainer.data_collator(rows[start : start + 4]) for start in range(0, 12, 4)]
        count = trainer._get_num_items_in_batch(batches, torch.device("cpu"))
        trainer.current_gradient_accumulation_steps = len(batches)
        for batch in batches:
            trainer.training_step(trainer.model, batch, count)
        logs: dict[str, float] = {"loss": 0.0}
        trainer.log(logs)
        expected = brute_force(trainer.model, rows, groups)
        assert {name for name in logs if name.startswith(("loss_", "tokens_", "acc_"))} == set(expected)
        for name, value in expected.items():
            assert logs[name] == pytest.approx(value, rel=1e-5)
        assert logs["examples_seen"] == 12
        assert trainer.state.log_history[-1]["loss_answer"] == logs["loss_answer"]


def test_what_is_logged_in_evaluation(stage1_recipe: dict[str, Any], tiny_root: Path, tmp_path: Path) -> None:
    test = {"path": str(tiny_root / "data" / "test.jsonl"), "split": "train", "type": "sftkey.datasets.columns"}
    recipe = {**stage1_recipe, "sftkey_method": "key-tag", "test_datasets": [test], "eval_strategy": "epoch"}
    trainer = build(recipe, tmp_path)
    metrics = trainer.evaluate()
    groups = {"thinking": {2}, "answer": {5}, "format": {1, 3, 4, 6, 7}}
    for name, value in brute_force(trainer.model, trainer.eval_dataset, groups).items():
        assert metrics[f"eval_{name}"] == pytest.approx(value, rel=1e-5)
