"""The pretrained model, its tokenizer as each method needs it, and the device that both run on."""

from __future__ import annotations

import copy
import platform
from pathlib import Path
from typing import Any

import torch
from sftkey import __version__
from sftkey.format import tags
from sftkey.format.methods import Method
from sftkey.format.templates import END_OF_TURN, PLAIN, TAGGED, chat_template

from experiments.settings import Settings

Weights = dict[str, torch.Tensor]


def device() -> torch.device:
    """The GPU where there is one."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def load_model(settings: Settings) -> tuple[Any, Any]:
    """The pretrained model in fp32 on the device (a GPU computes in bf16 under autocast), and its tokenizer.

    A folder with a ``.gguf`` file and no safetensors is read through the ``gguf`` package. The attention is PyTorch's
    own (SDPA).

    Raises:
        OSError: There is no such folder, or it holds no model.
    """
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = Path(settings.model)
    if not folder.is_dir():
        # Else the name would be looked up on the Hub.
        raise FileNotFoundError(f"--model {folder}: there is no such folder; download the model first")
    gguf = sorted(folder.glob("*.gguf"))
    source = {"gguf_file": gguf[0].name} if gguf and not any(folder.glob("*.safetensors")) else {}
    tokenizer = AutoTokenizer.from_pretrained(folder, **source)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="sdpa", **source)
    tokenizer.eos_token = END_OF_TURN
    if tokenizer.pad_token is None:
        tokenizer.pad_token = END_OF_TURN
    if settings.tags == "tokens":
        tokenizer.add_tokens(list(tags.TAGS))
        if len(tokenizer) > model.get_input_embeddings().num_embeddings:
            model.resize_token_embeddings(len(tokenizer))
    model.config.eos_token_id = tokenizer.eos_token_id
    return model.to(device()), tokenizer


def with_template(tokenizer: Any, method: Method, settings: Settings) -> Any:
    """A copy of the tokenizer with the chat template of a method."""
    tokenizer = copy.deepcopy(tokenizer)
    if method.tagged:
        tokenizer.chat_template = chat_template(TAGGED, settings.system_message)
    else:
        tokenizer.chat_template = chat_template(PLAIN)
    return tokenizer


def weights_of(model: Any) -> Weights:
    """A copy of the model's weights in the CPU's memory."""
    return {name: value.detach().cpu().clone() for name, value in model.state_dict().items()}


def generation_copy(model: Any) -> Any:
    """The model as it generates: a copy in bf16 on a GPU, the model itself (fp32) on a CPU."""
    return copy.deepcopy(model).to(torch.bfloat16) if device().type == "cuda" else model


def environment() -> dict[str, str]:
    """Device and versions, as they stand in the results."""
    import transformers

    where = device()
    name = torch.cuda.get_device_name(where) if where.type == "cuda" else _processor()
    return {
        "device": name,
        "precision": "bf16 autocast over fp32 weights" if where.type == "cuda" else "fp32",
        "sftkey": __version__,
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "python": platform.python_version(),
    }


def _processor() -> str:
    return f"CPU ({platform.machine()}, {torch.get_num_threads()} threads)"
