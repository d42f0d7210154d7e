"""What this machine lacks is one line, before a model is loaded."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from sftkey.recipes import machine
from sftkey.recipes.machine import obstacles
from sftkey.recipes.plugins import check_plugins
from sftkey.util.errors import UserError


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A working directory with a model, a file, and no optional package."""
    monkeypatch.chdir(tmp_path)
    Path("model").mkdir()
    Path("model/config.json").write_text("{}")
    Path("empty").mkdir()
    Path("file").write_text("x")
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    monkeypatch.setattr(machine, "find_spec", lambda name: None)


def found(accelerator: bool = False, **changes: Any) -> list[str]:
    return list(obstacles({"base_model": "model", "output_dir": "out", **changes}, accelerator=accelerator))


def test_nothing_is_found_and_nothing_left_where_all_is_there() -> None:
    assert found(bf16=False, attn_implementation="sdpa", optimizer="adamw_torch") == []
    assert found(True, bf16=True, lora_qkv_kernel=True, base_model="Qwen/Qwen3-8B-Base") == []
    assert found(bf16="auto") == []
    assert sorted(path.name for path in Path().iterdir()) == ["empty", "file", "model"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"bf16": True}, "bf16: True needs a GPU"),
        ({"fp16": True}, "fp16: True needs a GPU"),
        ({"tf32": True}, "tf32: True needs a GPU"),
        ({"load_in_4bit": True}, "load_in_4bit"),
        ({"lora_mlp_kernel": True}, "lora_mlp_kernel: True needs a GPU"),
        ({"fsdp_version": 2, "fsdp_config": {"offload_params": False}}, "fsdp_config: FSDP needs a GPU"),
        ({"attn_implementation": "flash_attention_2"}, "set attn_implementation: sdpa"),
        ({"flash_attention": True}, "remove flash_attention and set attn_implementation: sdpa"),
        ({"output_dir": "file"}, "output_dir: file can't be written"),
        ({"output_dir": "file/deep/out"}, "file is a file"),
        ({"output_dir": "/proc/sftkey/out"}, "output_dir: /proc/sftkey/out can't be written"),
        ({"dataset_prepared_path": "file/x"}, "dataset_prepared_path"),
        ({"base_model": "./modl"}, "there is no folder ./modl"),
        ({"base_model": "/nowhere/model"}, "there is no folder /nowhere/model"),
        ({"base_model": "model/checkpoint-4"}, "there is no folder model/checkpoint-4"),
        ({"base_model": "empty"}, "holds no config.json"),
        ({"base_model": "file"}, "is a file"),
        ({"adapter": "qlora"}, "needs the package bitsandbytes"),
        ({"optimizer": "adamw_bnb_8bit"}, "optimizer: needs the package bitsandbytes"),
        ({"use_wandb": True}, "needs the package wandb"),
        ({"use_ray": True}, "use_ray: needs the package ray"),
    ],
)
def test_each_lack_is_one_line(changes: dict[str, Any], message: str) -> None:
    lines = found(**changes)
    assert len(lines) == 1, lines
    assert message in lines[0]
    assert "\n" not in lines[0]


@pytest.mark.parametrize("key", ["use_trackio", "trackio_project_name"])
@pytest.mark.parametrize(("version", "is_old"), [("0.19.0", True), ("0.20.2", True), ("0.21.0", False), ("1.0", False)])
def test_the_trackio_that_axolotl_brings_is_too_old_for_transformers(
    monkeypatch: pytest.MonkeyPatch, key: str, version: str, is_old: bool
) -> None:
    monkeypatch.setattr("sftkey.recipes.machine.find_spec", lambda _: object())
    monkeypatch.setattr("importlib.metadata.version", lambda _: version)
    assert [f"{key}: transformers needs trackio 0.21.0" in line for line in found(**{key: "x"})] == [True] * is_old


def test_a_missing_package_on_a_gpu() -> None:
    assert "needs the package flash_attn" in found(True, attn_implementation="flash_attention_2")[0]
    assert "needs the package xformers" in found(True, xformers_attention=True)[0]


def test_a_model_that_is_nowhere_while_the_hub_is_off(monkeypatch: pytest.MonkeyPatch) -> None:
    assert found(base_model="Qwen/Qwen3-0-Nowhere") == []
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert "neither a folder here nor in the Hub's cache" in found(base_model="Qwen/Qwen3-0-Nowhere")[0]
    assert found() == []


def test_a_missing_deepspeed_file() -> None:
    assert any("deepspeed: zero.json: there is no such file" in line for line in found(deepspeed="zero.json"))


@pytest.mark.parametrize(
    ("plugins", "message"),
    [
        (["sftkey.SFTKeyPlugn"], "did you mean sftkey.SFTKeyPlugin"),
        (["sftky.SFTKeyPlugin"], "did you mean sftkey.SFTKeyPlugin"),
        (["sftkey.SFTKeyPlugin", "no_such_package.Plugin"], "there is no package 'no_such_package'"),
        (["sftkey.SFTKeyPlugin", "Liger"], "there is no package 'Liger'"),
        ([], "doesn't list sftkey.SFTKeyPlugin"),
        (None, "doesn't list sftkey.SFTKeyPlugin"),
        ("sftkey.SFTKeyPlugin", "is not a list"),
    ],
)
def test_plugins(plugins: Any, message: str) -> None:
    with pytest.raises(UserError, match=message):
        check_plugins({"plugins": plugins})


def test_this_plugin_is_found() -> None:
    check_plugins({"plugins": ["sftkey.SFTKeyPlugin"]})
