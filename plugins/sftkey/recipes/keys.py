"""The recipe keys of the plugin, and the shapes of those of Axolotl that it reads.

Keys are flat and prefixed, so that ``--sweep`` can vary them.
"""

from __future__ import annotations

from decimal import Decimal
from typing import Annotated, Any, Literal, TypeAlias

from pydantic import BaseModel, Field, StrictStr

from sftkey.format.methods import METHODS
from sftkey.format.segments import SEGMENT_GROUPS
from sftkey.training.objectives.registry import OBJECTIVES

MethodName: TypeAlias = Literal[tuple(METHODS)]  # type: ignore[valid-type]
SegmentName: TypeAlias = Literal[tuple(SEGMENT_GROUPS)]  # type: ignore[valid-type]


def _described(default: Any, description: str, **kwargs: Any) -> Any:
    return Field(default=default, json_schema_extra={"description": description}, **kwargs)


class SFTKeyArgs(BaseModel):
    """Recipe keys that the plugin adds to Axolotl's."""

    sftkey_method: MethodName | None = _described(
        None,
        f"What this stage trains. {'; '.join(f'{one.name}: {one.summary}' for one in METHODS.values())}. Required.",
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
    sftkey_format: str | dict[Literal["thinking_open", "thinking_close", "answer_open", "answer_close"], str] | None = (
        _described(
            None,
            "How a response is written: thinking_answer (the paper's tags, default), think (<think>, then a plain answer), "
            "or your own strings around thinking and answer. Another one than the paper's is written in the model's own "
            "chat template.",
        )
    )
    sftkey_columns: dict[Literal["question", "thinking", "answer", "options"], str | list[str]] | None = _described(
        None,
        "What the columns are called in data of type sftkey.datasets.columns. options, for multiple choice, names the "
        "column of the options, or the columns of one each.",
    )
    sftkey_answers: Literal["number", "maths", "option", "text"] | None = _described(
        None,
        "What the answers of your own rows are, which decides how evaluation finds and compares them: number, maths, "
        "option or text (default, which knows numbers, too; with options named, option).",
    )
    sftkey_held_out: float | None = _described(
        None,
        "The share of your own rows that is left out of training and evaluated, chosen by a hash of the question. Instead "
        "of it, test_datasets names a file of held-out rows.",
        gt=0,
        lt=1,
    )
    sftkey_turns: Literal["last", "all"] | None = _described(
        None,
        "Which turns of a conversation are trained, in data of type sftkey.datasets.messages: last (default), the last of "
        "the assistant, or all, every one with reasoning as a row of its own after its own history.",
    )
    sftkey_other_data: bool | None = _described(
        None, "Set to true when this stage is meant to train on other data than the stage that it starts from."
    )
    sftkey_accept_changes: list[Literal["before", "data", "weights"]] | None = _described(
        None,
        "What may have changed since this stage was started or finished, to go on with it all the same: the stage before "
        "and its weights, the data, the weights that this stage finished with.",
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
    sftkey_fp32_weights: bool | None = _described(
        None,
        "true keeps the weights and the optimizer in float32 under FSDP2 and computes in bfloat16, as DeepSpeed does. "
        "Without it Axolotl trains bfloat16 weights, in which small updates are lost.",
    )
    sftkey_segment_weights: dict[SegmentName, float] | None = _described(
        None,
        "Weight of each segment's tokens in the loss, normalised by the sum of weights; by default 1 for what the method "
        "trains and 0 for the rest.",
    )
    sftkey_segment_schedule: dict[SegmentName, float] | None = _described(
        None,
        "Segment weights at the end of training: the weights move linearly from sftkey_segment_weights (or the "
        "method's) to these.",
    )
    sftkey_objective: str | dict[str, Any] | None = _described(
        None,
        "What the loss of the trained tokens is: a name, or a mapping of `name` and its own keys. "
        f"{'; '.join(f'{name}: {kind.summary}' for name, kind in OBJECTIVES.items())}. Weights of segments go on top. "
        "Default: segment-weights where the recipe has weights, else ce.",
    )
    sftkey_reference_model: str | None = _described(
        None,
        "What objectives that take a reference compare with: a model, the output directory of a finished stage, or `before` "
        "for the stage that this one starts from. One pass at preparation gives what training needs.",
    )

    sftkey_requires: str | None = _described(
        None,
        'The versions of sftkey that this recipe works with, as in ">=0.2" (a version specifier as pip has them). Another '
        "version refuses it before anything is downloaded.",
    )

    sftkey_command: dict[str, Any] | None = _described(None, "Set by the plugin for Ray's workers; not for recipes.")


KEYS = tuple(SFTKeyArgs.model_fields)
"""Every recipe key of the plugin."""

_Text = Annotated[StrictStr | None, Field(description="a text")]
_Texts = Annotated[list[StrictStr] | None, Field(description="a list of texts")]
_Number = Annotated[Decimal | None, Field(description="a number")]
_Entries = Annotated[
    list[dict[str, Any]] | None,
    Field(description="a list of entries such as {path: openai/gsm8k, type: sftkey.datasets.gsm8k}"),
]


class ColumnNames(BaseModel, extra="forbid"):
    """``sftkey_columns``, of a recipe or an entry: every name is a text; options have one column, or at least two."""

    question: StrictStr = ""
    thinking: StrictStr = ""
    answer: StrictStr = ""
    options: StrictStr | Annotated[list[StrictStr], Field(min_length=2)] = ""


class AxolotlKeys(BaseModel):
    """The shapes that the checks, and the plugin before Axolotl has validated the recipe, take for granted."""

    output_dir: _Text = None
    base_model: _Text = None
    chat_template: _Text = None
    default_system_message: _Text = None
    dataset_prepared_path: _Text = None
    datasets: _Entries = None
    test_datasets: _Entries = None
    tokens: _Texts = None
    lora_modules_to_save: _Texts = None
    special_tokens: dict[str, Any] | None = Field(None, description="a mapping such as {pad_token: <|endoftext|>}")
    num_epochs: _Number = None
    max_steps: int | None = Field(None, description="a whole number")
    warmup_ratio: _Number = None
    context_parallel_size: _Number = None
    sequence_parallel_degree: _Number = None
    tensor_parallel_size: _Number = None
    sftkey_after: _Text = None
    sftkey_method: _Text = None
    sftkey_reference_model: _Text = None
    sftkey_columns: ColumnNames | None = Field(
        None, description="a mapping such as {question: prompt, thinking: cot, answer: target}"
    )
    sftkey_answers: Literal["number", "maths", "option", "text"] | None = Field(
        None, description="one of number, maths, option, text"
    )
    sftkey_held_out: Annotated[float, Field(gt=0, lt=1)] | None = Field(
        None, description="a share of the rows between 0 and 1, such as 0.1"
    )
    sftkey_warmup_epochs: _Number = None
    sftkey_accept_changes: list[Literal["before", "data", "weights"]] | None = Field(
        None, description="a list of before, data and weights"
    )


class SpecialTokens(BaseModel):
    """The same for ``special_tokens``."""

    additional_special_tokens: _Texts = None
