"""An objective with a reference model, from the recipe to the step that Axolotl's trainer takes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from support.axolotl_recipes import build
from support.objectives import BRUTE_FORCE, Token

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore"), pytest.mark.usefixtures("fresh_axolotl")]

PACKED = {
    "sample_packing": True,
    "pad_to_sequence_len": True,
    "sequence_len": 256,
    "micro_batch_size": 2,
    "dataset_num_proc": 1,
    "sample_packing_mp_start_method": "fork",
}


def tokens_of(trainer: Any, rows: list[dict[str, Any]]) -> list[Token]:
    """What brute force knows of rows, each run by itself, as packing must not let one see another."""
    found = []
    for number, row in enumerate(rows):
        logprobs = trainer.model(input_ids=torch.tensor([row["input_ids"]])).logits[0].double().log_softmax(-1)
        for index, (token, label, segment) in enumerate(
            zip(row["input_ids"], row["labels"], row["segments"], strict=True)
        ):
            if index and (label != -100 or segment in (1, 2, 3)):
                known: dict[str, Any] = {name: row[name][index] for name in ("reference_loss",) if name in row}
                if "anchor_ids" in row:
                    each = len(row["anchor_ids"]) // len(row["input_ids"])
                    here = slice(index * each, (index + 1) * each)
                    known["anchor_ids"] = torch.tensor(row["anchor_ids"][here])
                    known["anchor_logprobs"] = torch.tensor(row["anchor_logprobs"][here])
                found.append(Token(logprobs[index - 1], token, float(label != -100), segment, number, known))
    return found


@pytest.mark.parametrize(
    ("packed", "objective"),
    [
        (False, {"name": "rho-1", "share": 0.5, "within": "sequence"}),
        (True, {"name": "anchor-kl", "strength": 0.5, "top": 4}),
    ],
)
def test_a_step_of_axolotls_trainer_equals_brute_force(
    stage1_recipe: dict[str, Any],
    tmp_path: Path,
    packed: bool,
    objective: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from sftkey.axolotl import strategy

    loaded: list[str] = []
    load = strategy.load_reference
    monkeypatch.setattr(
        strategy, "load_reference", lambda place, *rest: loaded.append(str(place)) or load(place, *rest)
    )
    recipe = {**stage1_recipe, "sftkey_method": "key-tag", **(PACKED if packed else {})}
    recipe |= {"sftkey_objective": objective, "sftkey_reference_model": recipe["base_model"]}
    trainer = build(recipe, tmp_path)
    assert loaded == [recipe["base_model"]]
    # Another model than the reference: its own loss would be the reference's.
    generator = torch.Generator().manual_seed(0)
    for parameter in trainer.model.parameters():
        parameter.data += 0.05 * torch.randn(parameter.shape, generator=generator)
    trainer.model.train()
    batches = []
    for batch in trainer.get_train_dataloader():
        batches.append(batch)
        if len(batches) == 2:
            break
    count = trainer._get_num_items_in_batch(batches, torch.device("cpu"))
    trainer.current_gradient_accumulation_steps = 2
    seen: list[list[dict[str, Any]]] = []
    found = torch.zeros(())
    for batch in batches:
        seen.append(rows_of(batch, list(trainer.train_dataset)))
        found = found + trainer.training_step(trainer.model, dict(batch), count)
    total, items = BRUTE_FORCE[objective["name"]](
        [
            Token(one.logprobs, one.id, one.weight, one.segment, one.sequence + 1000 * number, one.known)
            for number, rows in enumerate(seen)
            for one in tokens_of(trainer, rows)
            if objective["name"] == "anchor-kl" or one.weight
        ],
        **{key: value for key, value in objective.items() if key != "name"},
    )
    assert float(count) == pytest.approx(items)
    torch.testing.assert_close(found.double(), (total / items).detach(), rtol=1e-4, atol=1e-6)
    # The figures of each segment are those of the cross-entropy.
    assert trainer._sums[True].tokens[5] == sum(row["segments"].count(5) for rows in seen for row in rows)
    # Another objective over the same pass prepares the rows anew, without the model.
    loaded.clear()
    build({**recipe, "sftkey_objective": objective, "sequence_len": recipe["sequence_len"] + 1}, tmp_path)
    assert not loaded


def rows_of(batch: dict[str, torch.Tensor], rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The rows of the data set that a batch holds, packed or padded."""
    text = [ids.tolist() for ids in batch["input_ids"]]
    found = []
    for line in text:
        place = 0
        while place < len(line):
            match = [row for row in rows if line[place : place + len(row["input_ids"])] == row["input_ids"]]
            if not match:
                break
            found.append(match[0])
            place += len(match[0]["input_ids"])
    return found
