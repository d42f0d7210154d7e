"""The reference model of an objective: loaded as a checkpoint is, if its tokens are those of the rows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from sftkey.evaluation.generation import load_model, load_tokenizer
from sftkey.util.errors import UserError


def load_reference(place: str, tokenizer: Any, trust_remote_code: bool = False) -> Any:
    """Load a reference model, for `sftkey.training.reference.Reference`.

    Args:
        place: Its folder or its name on the Hub.
        tokenizer: That of the rows; the model may lack its last tokens, added tags say.
        trust_remote_code: As for `load_model`.

    Raises:
        UserError: It can't be loaded, or its tokenizer has another token under an id of the rows' tokenizer.
    """
    try:
        theirs = {number: token for token, number in load_tokenizer(Path(place), trust_remote_code).get_vocab().items()}
    except UserError:
        theirs = {}  # weights alone: whether they have enough tokens is all that can be seen
    ours = sorted(tokenizer.get_vocab().items(), key=lambda item: item[1])
    other = next(((token, number) for token, number in ours if theirs.get(number, token) != token), None)
    if other is not None:
        token, number = other
        raise UserError(
            f"sftkey_reference_model: {place} has another tokenizer: its token {number} is {theirs[number]!r}, that of the "
            f"rows {token!r}; name a model with this stage's tokenizer"
        )
    return load_model(Path(place), len(tokenizer), trust_remote_code)
