"""What a tokenizer has to have for exact segments, and its ids of a text."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from sftkey.format.response_format import ResponseFormat
from sftkey.format.templates import END_OF_TURN, START_OF_TURN

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


class TokenizerError(ValueError):
    """The tokenizer can't give exact segments; the message says why and what to do."""


def encode(tokenizer: PreTrainedTokenizerBase, texts: list[str]) -> list[list[int]]:
    """Token ids of each text by itself, with no special tokens added and nothing truncated.

    The same ids as ``tokenizer(texts, add_special_tokens=False)``, but without the offsets into the text that a call
    keeps for each token: they are a quarter of its time.

    Args:
        tokenizer: A fast tokenizer.
        texts: Any number of texts; from a hundred on, the tokenizer's threads work in parallel.
    """
    _as_in_a_call(tokenizer)
    return [encoding.ids for encoding in tokenizer.backend_tokenizer.encode_batch_fast(texts, add_special_tokens=False)]


def encode_with_offsets(
    tokenizer: PreTrainedTokenizerBase, texts: list[str]
) -> list[tuple[NDArray[np.int32], NDArray[np.int64], NDArray[np.int64]]]:
    """What `encode` gives, and for each token where in its text it begins and ends, in characters."""
    _as_in_a_call(tokenizer)
    found = []
    for encoding in tokenizer.backend_tokenizer.encode_batch(texts, add_special_tokens=False):
        offsets = np.array(encoding.offsets, dtype=np.int64).reshape(-1, 2)
        found.append((np.array(encoding.ids, dtype=np.int32), offsets[:, 0], offsets[:, 1]))
    return found


def _as_in_a_call(tokenizer: PreTrainedTokenizerBase) -> None:
    """Set what a call sets, because the tokenizer keeps what an earlier call or its tokenizer.json asked for."""
    backend = tokenizer.backend_tokenizer
    backend.no_truncation()
    backend.no_padding()
    backend.encode_special_tokens = tokenizer.split_special_tokens


def longest_token(tokenizer: PreTrainedTokenizerBase) -> int:
    """The characters of the longest token: a text has at least one token for so many."""
    return max(map(len, tokenizer.get_vocab()))


def control_tokens(tokenizer: PreTrainedTokenizerBase) -> tuple[str, ...]:
    """The texts that the tokenizer reads as special tokens (turn markers, end of text), longest first."""
    special = {str(token) for token in tokenizer.added_tokens_decoder.values() if token.special}
    return tuple(sorted(special | set(tokenizer.all_special_tokens), key=lambda text: (-len(text), text)))


def control_token_pattern(tokenizer: PreTrainedTokenizerBase) -> re.Pattern[str]:
    """Matches any text that the tokenizer reads as a special token."""
    return re.compile("|".join(re.escape(token) for token in control_tokens(tokenizer)))


def tags_are_tokens(tokenizer: PreTrainedTokenizerBase, response_format: ResponseFormat) -> bool:
    """Whether each tag of a format is one added token of the tokenizer.

    Raises:
        TokenizerError: Only some of them are, or they are *special* tokens.
    """
    added = {str(token): token for token in tokenizer.added_tokens_decoder.values()}
    present = [tag for tag in response_format.tags if tag in added]
    if not present:
        return False
    if len(present) < len(response_format.tags):
        missing = [tag for tag in response_format.tags if tag not in added]
        raise TokenizerError(
            f"the tokenizer holds {', '.join(present)} as added tokens but not {', '.join(missing)}; add all or none"
        )
    special = [tag for tag in present if added[tag].special]
    if special:
        raise TokenizerError(
            f"{', '.join(special)} are special tokens of the tokenizer: lm-eval and vLLM drop those from the output, and "
            "the format could never match; add the tags as tokens that aren't special"
        )
    return True


def check_is_fast(tokenizer: PreTrainedTokenizerBase) -> None:
    """Refuse a slow tokenizer, which has no offsets; raises `TokenizerError`."""
    if not tokenizer.is_fast:
        raise TokenizerError(f"{tokenizer.name_or_path} is a slow tokenizer; sftkey needs a fast one (tokenizer.json)")


def check_joins(tokenizer: PreTrainedTokenizerBase) -> None:
    """Make sure that texts that are tokenised one by one join to the exact text in ChatML turns.

    Raises:
        TokenizerError: The tokenizer lacks the turn markers, or changes text at its beginning.
    """
    name = tokenizer.name_or_path
    controls = control_tokens(tokenizer)
    for marker in (START_OF_TURN, END_OF_TURN):
        if marker not in controls:
            raise TokenizerError(f"{name} has no special token {marker}; add it to its additional_special_tokens")
    probes = ["a", " a", "\na", "a ", "a\n", "1", "<", "A", "\ufb01"]
    for text, ids in zip(probes, encode(tokenizer, probes), strict=True):
        decoded = tokenizer.decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False)
        if decoded != text:
            raise TokenizerError(
                f"{name} turns {text!r} into {decoded!r} at the start of a segment, so segments would not join to the "
                "exact text; byte-level BPE tokenizers (Qwen, SmolLM, Llama 3) don't"
            )
