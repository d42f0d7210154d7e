"""What a recipe asks for and this machine lacks, found before a model is loaded."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path

from packaging.version import Version

from sftkey.recipes.load import DEFAULT_OUTPUT_DIR, Recipe, deepspeed_settings, fsdp_version
from sftkey.util.errors import UserError

_NEED_GPU = (
    *("bf16", "bfloat16", "fp16", "float16", "tf32", "load_in_8bit", "load_in_4bit"),
    *("lora_mlp_kernel", "lora_qkv_kernel", "lora_o_kernel", "lora_embedding_kernel"),
)

_ATTENTION_PACKAGES = {
    "flash_attention_2": ("flash_attn", "kernels"),
    "flash_attention_3": ("flash_attn_interface", "flash_attn_3", "kernels"),
    "xformers": ("xformers",),
    "sage": ("sageattention",),
}
"""Any of these packages has it."""

_OLD_ATTENTION = {"flash_attention": "flash_attention_2", "xformers_attention": "xformers", "sage_attention": "sage"}

_TRACKIO = Version("0.21.0")
"""The first one that has what transformers 5.16 to 5.20 hand over; Axolotl 0.19 pins 0.19.0."""


def obstacles(cfg: Recipe, *, accelerator: bool, trains: bool = True) -> Iterator[str]:
    """Name what would end a training here, each with the key and what to do.

    Args:
        cfg: The raw recipe, after `sftkey.stages.handover.start_from`.
        accelerator: Whether there is a GPU or the like.
        trains: Otherwise only what preparing data needs.
    """
    yield from _places(cfg)
    yield from _base_model(cfg, trains)
    if trains and not accelerator:
        yield from _without_accelerator(cfg)
    if trains or accelerator:
        yield from _attention(cfg, accelerator)
    if trains:
        yield from _packages(cfg)


def _places(cfg: Recipe) -> Iterator[str]:
    for key, default in (("output_dir", DEFAULT_OUTPUT_DIR), ("dataset_prepared_path", None)):
        if (place := cfg.get(key) or default) and (reason := _unwritable(Path(str(place)))):
            yield f"{key}: {place} can't be written ({reason}); choose another place"


def _unwritable(place: Path) -> str | None:
    try:
        there = next(path for path in (place, *place.absolute().parents) if path.exists())
        if not there.is_dir():
            return f"{there} is a file"
        # Asking for permission isn't enough: root has it on a file system that is read-only.
        Path(tempfile.mkdtemp(prefix=".sftkey-", dir=there)).rmdir()
    except OSError as error:
        return str(error.strerror or error)
    return None


def _base_model(cfg: Recipe, trains: bool) -> Iterator[str]:
    name = str(cfg.get("base_model") or "")
    path = Path(name)
    if not name:
        return  # Axolotl says so
    if path.is_dir():
        if not (path / "config.json").is_file():
            yield f"base_model: {name} holds no config.json, so it is no model; name the folder with its weights"
    elif path.exists():
        yield f"base_model: {name} is a file; name the folder that holds config.json and the weights"
    # A name with one slash may be the Hub's, unless its first part is a folder here.
    elif name.startswith(("/", ".", "~")) or name.count("/") > 1 or ("/" in name and path.parent.is_dir()):
        yield f"base_model: there is no folder {name}; correct the path, which is relative to the working directory"
    elif trains and os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "ON", "YES", "TRUE"):
        from huggingface_hub import try_to_load_from_cache

        if not isinstance(try_to_load_from_cache(name, "config.json", revision=cfg.get("revision_of_model")), str):
            yield (
                f"base_model: {name} is neither a folder here nor in the Hub's cache, and HF_HUB_OFFLINE is set; correct it, "
                "or download it first"
            )


def _without_accelerator(cfg: Recipe) -> Iterator[str]:
    for key in _NEED_GPU:
        if str(cfg.get(key)).lower() in ("true", "full"):
            yield f"{key}: {cfg[key]} needs a GPU, and there is none here; set {key}: false to train on the CPU"
    if fsdp_version(cfg):
        yield "fsdp_config: FSDP needs a GPU, and there is none here; remove it to train on CPUs, unsharded"


def _attention(cfg: Recipe, accelerator: bool) -> Iterator[str]:
    old = next((key for key in _OLD_ATTENTION if cfg.get(key)), None)
    key = "attn_implementation" if cfg.get("attn_implementation") else old
    if key is None:
        return
    kind = _OLD_ATTENTION.get(key) or str(cfg[key])
    packages = _ATTENTION_PACKAGES.get(kind, ())
    instead = f"{f'remove {key} and ' if key == old else ''}set attn_implementation: sdpa"
    if not accelerator and (packages or "flash" in kind):
        yield f"{key}: {cfg[key]} needs a GPU, and there is none here; {instead}"
    elif packages and not any(find_spec(package) for package in packages):
        yield f"{key}: {cfg[key]} needs the package {packages[0]}, which isn't installed; install it, or {instead}"


def _packages(cfg: Recipe) -> Iterator[str]:
    optimizer = str(cfg.get("optimizer") or "")
    for key, package, needed in (
        ("use_wandb", "wandb", cfg.get("use_wandb")),
        ("wandb_project", "wandb", cfg.get("wandb_project")),
        ("use_mlflow", "mlflow", cfg.get("use_mlflow")),
        ("mlflow_experiment_name", "mlflow", cfg.get("mlflow_experiment_name")),
        ("use_comet", "comet_ml", cfg.get("use_comet")),
        ("use_trackio", "trackio", cfg.get("use_trackio")),
        ("trackio_project_name", "trackio", cfg.get("trackio_project_name")),
        ("use_tensorboard", "tensorboard", cfg.get("use_tensorboard")),
        ("adapter", "bitsandbytes", cfg.get("adapter") == "qlora"),
        ("optimizer", "bitsandbytes", optimizer.endswith("_8bit") and "torchao" not in optimizer),
        ("use_ray", "ray", cfg.get("use_ray")),
        ("deepspeed", "deepspeed", cfg.get("deepspeed")),
    ):
        if needed and find_spec(package) is None:
            yield f"{key}: needs the package {package}, which isn't installed; install it, or change {key}"
    asks = next((key for key in ("use_trackio", "trackio_project_name") if cfg.get(key)), None)
    if asks and find_spec("trackio") and (installed := Version(metadata.version("trackio"))) < _TRACKIO:
        yield (
            f"{asks}: transformers needs trackio {_TRACKIO} or newer and would end the training at its first step, because "
            f"{installed} is installed; pip install 'trackio>={_TRACKIO}', or change {asks}"
        )
    try:
        deepspeed_settings(cfg.get("deepspeed"), Path(str(cfg.get("axolotl_config_path") or "")).parent)
    except (OSError, UserError) as error:
        yield str(error)
