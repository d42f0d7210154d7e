"""The cells of an experiment, one per strategy and seed, and their files: what is saved is never computed again."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

SCHEMA = 1


@dataclass(frozen=True, slots=True)
class Cell:
    """One strategy. Its last stage is trained here; an earlier one is another cell, whose weights it is handed.

    Attributes:
        name: As in the paper's tables.
        method: Of the stage that is trained here.
        after: The cell whose weights it starts from; ``None`` for the pretrained model.
        diagnosed: Whether its checkpoint is diagnosed as one that Stage 2 could start from.
        context_grad: False to train without the context gradient (`sftkey.training.context_grad`).
    """

    name: str
    method: str
    after: str | None = None
    diagnosed: bool = False
    context_grad: bool = True


CELLS = (
    Cell("SFT-Tag", "sft-tag", diagnosed=True),
    Cell("SFTKey-Tag", "key-tag", after="SFT-Tag"),
    # The control that the paper lacks: as many more steps as Stage 2 takes, with the loss of Stage 1.
    Cell("SFT-Tag continued", "sft-tag", after="SFT-Tag"),
    Cell("SFT", "sft"),
    Cell("Key-Tag", "key-tag"),
)
"""In the order in which they are trained for each seed."""

WITHOUT_CONTEXT_GRAD = Cell("SFTKey-Tag without context gradient", "key-tag", after="SFT-Tag", context_grad=False)
"""Stage 2 for whose gradient the context is constant; trained on request only."""


def _file_name(cell: str) -> str:
    return cell.lower().replace(",", "").replace(" ", "-")


class Store:
    """The files of an experiment.

    Args:
        folder: Where they are; made if it isn't there.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "cells").mkdir(parents=True, exist_ok=True)
        (folder / "weights").mkdir(exist_ok=True)

    def cell_path(self, cell: str, seed: int) -> Path:
        """The file of a cell."""
        return self.folder / "cells" / f"seed{seed}_{_file_name(cell)}.json"

    def weights_path(self, cell: str, seed: int) -> Path:
        """The file of a cell's weights."""
        return self.folder / "weights" / f"seed{seed}_{_file_name(cell)}.safetensors"

    def read(self, name: str) -> dict[str, Any] | None:
        """A JSON file in the folder, ``None`` where there is none."""
        path = self.folder / name
        return json.loads(path.read_text(encoding="utf-8")) if path.exists() else None

    def write(self, name: str | Path, content: Mapping[str, Any]) -> None:
        """Write a JSON file whole or not at all."""
        path = self.folder / name
        temporary = path.with_name(f".{path.name}.{os.getpid()}")
        temporary.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        os.replace(temporary, path)

    def done(self, cell: str, seed: int) -> bool:
        """Whether a cell is finished."""
        return self.cell_path(cell, seed).exists()

    def cells(self) -> Iterator[dict[str, Any]]:
        """All finished cells."""
        for path in sorted((self.folder / "cells").glob("*.json")):
            yield json.loads(path.read_text(encoding="utf-8"))

    def save_weights(self, cell: str, seed: int, weights: dict[str, torch.Tensor]) -> None:
        """Keep a cell's weights for the cells after it."""
        path = self.weights_path(cell, seed)
        temporary = path.with_suffix(f".{os.getpid()}")
        save_file(weights, temporary)
        os.replace(temporary, path)

    def load_weights(self, cell: str, seed: int) -> dict[str, torch.Tensor] | None:
        """The weights of a cell, ``None`` where they weren't kept."""
        path = self.weights_path(cell, seed)
        return load_file(path) if path.exists() else None

    def drop_weights(self, cell: str, seed: int) -> None:
        """Remove a cell's weights."""
        self.weights_path(cell, seed).unlink(missing_ok=True)
