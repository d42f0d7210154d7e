"""The recipe keys of the plugin: flat and prefixed, so that ``--sweep`` can vary them."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, Field

PREFIX = "sftkey"


def _described(default: Any, description: str, **kwargs: Any) -> Any:
    return Field(default=default, json_schema_extra={"description": description}, **kwargs)


class SFTKeyArgs(BaseModel):
    """Recipe keys that the plugin adds to Axolotl's."""

    sftkey_method: Literal["sft", "sft-tag", "key-tag", "key"] | None = _described(
        None,
        "What this stage trains: sft (untagged, whole response), sft-tag (tagged, whole response: Stage 1), key-tag "
        "(tagged, all after </Thinking>: Stage 2), key (untagged, all after the reasoning). Required.",
    )
    sftkey_after: str | None = _described(
        None,
        "The recipe whose output this stage starts from, relative to this file. Its output_dir becomes base_model.",
    )
    sftkey_warmup_epochs: float | None = _described(
        None,
        "Linear warmup in epochs (the paper: 0.5), whatever the number of epochs, batch size and processes. "
        "Cannot be used with warmup_steps or warmup_ratio.",
        ge=0,
    )
    sftkey_tags: Literal["text", "tokens"] | None = _described(
        None,
        "Whether the four tags are plain text (default) or one added token each; `tokens` is short for listing the four "
        "tags under Axolotl's `tokens:`.",
    )
    sftkey_columns: dict[Literal["question", "thinking", "answer"], str] | None = _described(
        None, "What the columns are called in data of type sftkey.datasets.columns."
    )
    sftkey_other_data: bool | None = _described(
        None, "Set to true when this stage is meant to train on other data than the stage that it starts from."
    )
    sftkey_sparse_logits: bool | None = _described(
        True,
        "Compute the output layer and the loss at labelled positions only: same loss and gradients, less time and "
        "memory. false takes the standard path.",
    )
    sftkey_context_grad: bool | None = _described(
        True,
        "Experimental: false runs prompt and thinking once without gradient and trains on what follows them against "
        "their keys and values as constants. The loss stays the same and the gradient does not: another method, at a "
        "lower price. For the methods key-tag and key.",
    )
    sftkey_segment_weights: dict[Literal["thinking", "format", "answer"], float] | None = _described(
        None,
        "Weight of each segment's tokens in the loss, normalised by the sum of weights; by default 1 for what the method "
        "trains and 0 for the rest.",
    )
    sftkey_segment_schedule: dict[Literal["thinking", "format", "answer"], float] | None = _described(
        None,
        "Segment weights at the end of training: the weights move linearly from sftkey_segment_weights (or the "
        "method's) to these.",
    )

    sftkey_requires: str | None = _described(
        None,
        'The versions of sftkey that this recipe works with, as in ">=0.2" (a version specifier as pip has them). Another '
        "version refuses it before anything is downloaded.",
    )


KEYS = tuple(SFTKeyArgs.model_fields)
"""Every recipe key of the plugin."""
