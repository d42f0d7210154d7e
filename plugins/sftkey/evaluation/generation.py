"""Load a checkpoint; generate greedily in batches up to the end of the turn. Torch and transformers only."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch.nn.utils.rnn import pad_sequence

from sftkey.format.templates import END_OF_TURN
from sftkey.util.errors import UserError
from sftkey.util.extras import extra
from sftkey.util.text import one_line

if TYPE_CHECKING:
    from transformers import GenerationConfig, PreTrainedTokenizerBase


class Completion(NamedTuple):
    """A model's output.

    Attributes:
        text: The new text without special tokens, as with lm-eval and vLLM.
        tokens: Number of new tokens, the end of the turn included.
        finished: Whether the model ended its turn; otherwise the token limit cut it off.
    """

    text: str
    tokens: int
    finished: bool


def load_tokenizer(folder: Path, trust_remote_code: bool = False) -> Any:
    """Load the tokenizer of a checkpoint.

    Args:
        folder: See `load_model`.
        trust_remote_code: See `load_model`.

    Raises:
        UserError: There is none that can be loaded.
    """
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(str(folder), trust_remote_code=trust_remote_code)
    except (OSError, ValueError) as error:
        raise UserError(f"{folder}: its tokenizer can't be loaded ({one_line(str(error))})") from error


def load_model(
    folder: Path,
    tokens: int,
    trust_remote_code: bool = False,
    *,
    base: str | None = None,
    quantization: Any = None,
    merge: bool = True,
) -> Any:
    """Load a checkpoint onto the GPU in bf16, or onto the CPU in fp32; merge an adapter into its base model.

    Args:
        folder: The stage's output directory.
        tokens: The size of its tokenizer.
        trust_remote_code: Whether the code of the model's repository may run; else a model that has some is refused.
        base: The base model of an adapter; by default what the adapter says.
        quantization: A `transformers` quantization config for the base model of an adapter.
        merge: Merge an adapter.

    Raises:
        UserError: There are no weights that can be loaded.
    """
    from safetensors import SafetensorError
    from transformers import AutoModelForCausalLM

    on_gpu = torch.cuda.is_available()
    source: Any = folder
    try:
        if (folder / "adapter_config.json").is_file():
            with extra("eval"):
                from peft import PeftConfig

            source = base or PeftConfig.from_pretrained(str(folder)).base_model_name_or_path
        model: Any = AutoModelForCausalLM.from_pretrained(
            source,
            dtype=torch.bfloat16 if on_gpu else torch.float32,
            attn_implementation="sdpa",
            trust_remote_code=trust_remote_code,
        )
        if source != folder:
            model = _with_adapter(model, folder, tokens)
            model = model.merge_and_unload() if merge else model
    except UserError:
        raise
    except (OSError, ValueError, SafetensorError) as error:
        where = folder if source == folder else f"{source}, the base model of the adapter in {folder}"
        raise UserError(f"{where}: its weights can't be loaded ({one_line(str(error))})") from error
    for parameter in model.parameters():
        parameter.requires_grad_(parameter.is_floating_point())
    return model.to("cuda" if on_gpu else "cpu")


def _with_adapter(model: Any, folder: Path, tokens: int) -> Any:
    from transformers import AutoConfig

    with extra("eval"):
        from peft import PeftModel

    # As in training: room for added tag tokens, and the padding of the stage's config.
    config = folder / "config.json"
    size = max(tokens, AutoConfig.from_pretrained(folder).vocab_size if config.is_file() else 0)
    if size > model.get_input_embeddings().num_embeddings:
        model.resize_token_embeddings(size, mean_resizing=False)
    adapted: Any = PeftModel.from_pretrained(model, str(folder))
    return adapted


def complete(
    model: Any,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[Sequence[int]],
    *,
    max_new_tokens: int,
    batch_size: int,
    min_new_tokens: int = 0,
    end: str = END_OF_TURN,
) -> list[Completion]:
    """Continue prompts greedily. Prompts of similar length share a batch.

    Args:
        model: A causal language model on its device.
        tokenizer: Its tokenizer.
        prompts: Token ids of each prompt; none is empty.
        max_new_tokens: The most new tokens for each.
        batch_size: Prompts per batch.
        min_new_tokens: The fewest, to measure speed.
        end: The token that ends a turn.

    Returns:
        One completion per prompt, in their order.

    Raises:
        ValueError: The tokenizer has no end-of-turn token.
    """
    config, ends = _greedy(tokenizer, end, max_new_tokens, min_new_tokens)
    last = config.pad_token_id
    completions: dict[int, Completion] = {}
    order = sorted(range(len(prompts)), key=lambda index: -len(prompts[index]))
    with evaluating(model), torch.inference_mode():
        for start in range(0, len(order), batch_size):
            chosen = order[start : start + batch_size]
            ids = padded([prompts[index] for index in chosen], last, side="left").to(model.device)
            mask = padded([[1] * len(prompts[index]) for index in chosen], 0, side="left").to(model.device)
            output = model.generate(input_ids=ids, attention_mask=mask, generation_config=config)
            for index, row in zip(chosen, output[:, ids.shape[1] :].tolist(), strict=True):
                completions[index] = _completion(row, ends, tokenizer)
    return [completions[index] for index in range(len(prompts))]


def stream(
    model: Any, tokenizer: Any, prompt: Sequence[int], *, max_new_tokens: int, end: str, on_text: Callable[[str], None]
) -> Completion:
    """Continue one prompt as `complete` does, and show the text while it grows.

    Args:
        model: See `complete`.
        tokenizer: See `complete`.
        prompt: Token ids.
        max_new_tokens: The most new tokens.
        end: The token that ends a turn.
        on_text: Called with all the text so far. Ctrl-C ends the output.

    Raises:
        UserError: The prompt is longer than the model reads.
    """
    longest = getattr(model.config, "max_position_embeddings", None)
    if longest and len(prompt) >= longest:
        raise UserError(f"the prompt has {len(prompt):,} tokens; the model reads {longest:,}, with what it writes")
    config, ends = _greedy(tokenizer, end, max_new_tokens)
    seen: list[int] = []
    ids: list[int] = []

    class _Streamer:
        def put(self, value: Any) -> None:
            seen.extend(value.flatten().tolist())
            ids[:] = seen[len(prompt) :]
            if ids:
                on_text(_completion(ids, ends, tokenizer).text)

        def end(self) -> None:
            pass

    with evaluating(model), torch.inference_mode(), suppress(KeyboardInterrupt):
        rows = torch.tensor([list(prompt)], device=model.device)
        streamer = _Streamer()
        model.generate(
            input_ids=rows, attention_mask=torch.ones_like(rows), generation_config=config, streamer=streamer
        )
    return _completion(ids, ends, tokenizer)


@contextmanager
def evaluating(model: Any) -> Iterator[None]:
    """Put a model in evaluation mode, and back."""
    was_training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(was_training)


def padded(rows: Iterable[Sequence[int]], value: int, *, side: str = "right") -> torch.Tensor:
    """Rows of integers as a tensor of shape (rows, longest row)."""
    return pad_sequence([torch.tensor(row) for row in rows], batch_first=True, padding_value=value, padding_side=side)


def _greedy(
    tokenizer: PreTrainedTokenizerBase, end: str, max_new_tokens: int, min_new_tokens: int = 0
) -> tuple[GenerationConfig, set[int]]:
    """How outputs are generated, and the tokens that end one."""
    from transformers import GenerationConfig

    last = tokenizer.convert_tokens_to_ids(end)
    if not isinstance(last, int) or last == tokenizer.unk_token_id:
        raise ValueError(f"{tokenizer.name_or_path} has no token {end} to stop at")
    ends = {last} if tokenizer.eos_token_id is None else {last, tokenizer.eos_token_id}
    config = GenerationConfig(
        do_sample=False,
        num_beams=1,
        repetition_penalty=1.0,
        max_new_tokens=max_new_tokens,
        min_new_tokens=min_new_tokens or None,
        eos_token_id=sorted(ends),
        pad_token_id=last,
    )
    return config, ends


def _completion(row: list[int], ends: set[int], tokenizer: PreTrainedTokenizerBase) -> Completion:
    length = next((index for index, token in enumerate(row) if token in ends), None)
    kept = row if length is None else row[:length]
    text = tokenizer.decode(kept, skip_special_tokens=True, clean_up_tokenization_spaces=False)
    return Completion(str(text), len(kept) + (length is not None), length is not None)
