"""How a finished stage is served: the reasoning parser beside its weights, and the commands for its model card."""

from __future__ import annotations

from pathlib import Path

from sftkey.format import reasoning_parser
from sftkey.format.methods import METHODS
from sftkey.stages.links import MERGED_FOLDER
from sftkey.stages.stage import Stage
from sftkey.util.files import write_text_atomically

PARSER_FILE = "sftkey_reasoning_parser.py"
"""In a stage's output directory: what ``vllm serve --reasoning-parser-plugin`` loads."""


def write_reasoning_parser(folder: Path) -> None:
    """Put vLLM's reasoning parser beside the weights of a stage."""
    write_text_atomically(folder / PARSER_FILE, Path(reasoning_parser.__file__).read_text(encoding="utf-8"))


def serving_commands(stage: Stage) -> list[str]:
    """The commands that serve a stage as it was scored, in its folder: those of vLLM and of llama.cpp."""
    folder = MERGED_FOLDER if stage.is_adapter else "."
    vllm = f"vllm serve {folder} --override-generation-config '{{\"temperature\": 0}}'"
    if (method := METHODS.get(stage.method)) is not None and method.tagged:
        vllm += f" --reasoning-parser-plugin {folder}/{PARSER_FILE} --reasoning-parser {reasoning_parser.PARSER}"
    convert = f"python convert_hf_to_gguf.py {folder} --outfile model.gguf"
    return [vllm, convert, "llama-server -m model.gguf --jinja --temp 0"]
