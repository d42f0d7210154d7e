"""What the plugin does when training starts in a directory that an earlier run has been killed in."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from sftkey.axolotl.plugin import SFTKeyPlugin
from sftkey.stages import training_run
from sftkey.stages.completion import mean_loss
from sftkey.stages.lock import TRAINING_LOCK, Occupied, OutputLock
from sftkey.stages.marker import MARKER_FILE, RUN_FILE, SCHEMA, RunFile
from sftkey.util.errors import UserError
from sftkey.util.files import write_atomically

SETTINGS = {"learning_rate": 1e-5, "sftkey_method": "sft-tag"}


@pytest.fixture
def output(tmp_path: Path) -> Path:
    """An output directory with the run file of a killed run."""
    write_atomically(tmp_path / RUN_FILE, {"schema": SCHEMA, "settings": SETTINGS, "world_size": 1})
    return tmp_path


def checkpoint(
    output: Path, step: int, state: str | None = "{}", names: tuple[str, ...] = ("optimizer.pt", "rng_state.pth")
) -> Path:
    """A checkpoint with what the trainer writes into it, ``trainer_state.json`` last."""
    path = output / f"checkpoint-{step}"
    path.mkdir()
    for name in names:
        (path / name).write_bytes(b"x")
    if state is not None:
        (path / "trainer_state.json").write_text(state)
    return path


def start(output: Path, before: Any = None, **settings: Any) -> Any:
    """Start training as far as the plugin's hook."""
    from axolotl.utils.dict import DictDefault

    plugin = SFTKeyPlugin()
    plugin._settings, plugin._before = {**SETTINGS, **settings}, before
    cfg = DictDefault({"output_dir": str(output), "auto_resume_from_checkpoints": True, **settings})
    try:
        plugin.load_datasets(cfg)
    finally:
        plugin._release_lock()
    return cfg


def test_a_checkpoint_that_was_being_saved_is_removed(output: Path) -> None:
    whole = checkpoint(output, 8)
    partial = [
        checkpoint(output, 16, None),
        checkpoint(output, 24, '{"global_step": 2'),
        checkpoint(output, 32, "{}", ("optimizer.pt",)),
        checkpoint(output, 40, None, ()),
    ]
    assert start(output).resume_from_checkpoint == str(whole)
    assert whole.is_dir()
    assert not any(path.exists() for path in partial)


def test_final_weights_without_a_marker_are_not_the_end(output: Path) -> None:
    checkpoint(output, 8)
    last = checkpoint(output, 100)
    (output / "model.safetensors").write_bytes(b"half of the weights")
    (output / "trainer_state.json").write_text("{}")
    (output / f".{MARKER_FILE}.4711").write_text('{"schema"')
    assert start(output).resume_from_checkpoint == str(last)


def test_no_checkpoint_starts_from_the_beginning_whatever_the_settings_were(output: Path) -> None:
    assert start(output, learning_rate=1.0).resume_from_checkpoint is None
    assert json.loads((output / RUN_FILE).read_text())["settings"]["learning_rate"] == 1.0


def test_other_settings_are_refused(output: Path) -> None:
    checkpoint(output, 8)
    with pytest.raises(UserError, match=r"checkpoints of a run with other settings \(learning_rate: 1e-05 -> 1.0\)"):
        start(output, learning_rate=1.0)


def test_what_was_begun_from_an_earlier_stage_before_is_not_gone_on_with(output: Path, tmp_path: Path) -> None:
    from sftkey.stages.completion import after_stage
    from sftkey.stages.marker import Marker
    from sftkey.stages.stage import Stage

    def before(name: str) -> Stage:
        return Stage(
            tmp_path / "stage1", {}, Marker(id=name, finished_at="2026-01-01", method="sft-tag", base_model="x")
        )

    checkpoint(output, 8)
    run = RunFile(settings=SETTINGS, after=after_stage(before("1"), "x", copy=False))
    write_atomically(output / RUN_FILE, run.content)
    assert start(output, before("1")).resume_from_checkpoint is not None
    with pytest.raises(UserError, match=r"was trained from an earlier .*stage1, finished 2026-01-01"):
        start(output, before("2"))


def test_a_finished_stage_ends_at_once(output: Path) -> None:
    checkpoint(output, 8)
    marker = {"schema": SCHEMA, "settings": SETTINGS, "finished_at": "2026", "method": "sft-tag", "base_model": "x"}
    write_atomically(output / MARKER_FILE, marker)
    with pytest.raises(SystemExit) as ended:
        start(output)
    assert ended.value.code == 0


def test_another_training_in_the_directory(output: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training_run, "_PATIENCE_SECONDS", 0.3)
    with OutputLock(output, TRAINING_LOCK), pytest.raises(Occupied, match="in use by another run"):
        start(output)
    start(output)


def test_processes_that_do_not_train_together(monkeypatch: pytest.MonkeyPatch) -> None:
    from types import SimpleNamespace

    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(UserError, match="2 processes were started, but the trainer sees 1"):
        SFTKeyPlugin().post_trainer_create(SimpleNamespace(), SimpleNamespace(args=SimpleNamespace(world_size=1)))


def trained(output: Path) -> tuple[SFTKeyPlugin, Any]:
    """A plugin whose training has ended: what is left is saving the weights."""
    from types import SimpleNamespace

    from axolotl.utils.dict import DictDefault
    from transformers import TrainerState

    plugin = SFTKeyPlugin()
    plugin._recipe = {"sftkey_method": "sft-tag", "datasets": [{"path": "rows.jsonl"}]}
    plugin._trainer = SimpleNamespace(state=TrainerState(global_step=8, epoch=1.0))
    cfg = DictDefault(
        {
            "output_dir": str(output),
            "sftkey_method": "sft-tag",
            "axolotl_config_path": "stage1.yml",
            "special_tokens": {"eos_token": "<|im_end|>"},
            "datasets": [{"path": "rows.jsonl"}],
            "dataset_prepared_path": str(output / "prepared"),
        }
    )
    plugin._run = training_run.TrainingRun(cfg, plugin._recipe, {}, None, processes=1, main=True, say=print)
    plugin.post_train(cfg, None)
    return plugin, cfg


@pytest.mark.parametrize("error", [OSError("No space left on device"), SystemExit(0), KeyboardInterrupt()])
def test_weights_that_could_not_be_saved_leave_no_marker(tmp_path: Path, error: BaseException) -> None:
    plugin, cfg = trained(tmp_path)
    plugin._run._lock = OutputLock(tmp_path, TRAINING_LOCK)
    plugin._run._lock.acquire()

    def save_and_unload() -> None:
        # As Axolotl does it since 0.20.
        try:
            raise error
        finally:
            plugin.post_train_unload(cfg)

    with pytest.raises(type(error)):
        save_and_unload()
    assert not (tmp_path / MARKER_FILE).exists()
    with OutputLock(tmp_path, TRAINING_LOCK):
        pass


def test_a_good_end_leaves_a_marker(tmp_path: Path) -> None:
    plugin, cfg = trained(tmp_path)
    try:
        pass
    finally:
        plugin.post_train_unload(cfg)
    assert json.loads((tmp_path / MARKER_FILE).read_text())["training"]["steps"] == 8


@pytest.mark.parametrize("error", [None, RuntimeError("no card")])
def test_the_card_is_that_of_the_marker_that_was_just_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception | None
) -> None:
    from sftkey.stages import card

    marked, model_card = [], card.model_card

    def watched(*arguments: Any) -> Any:
        marked.append((tmp_path / MARKER_FILE).exists())
        if error:
            raise error
        return model_card(*arguments)

    monkeypatch.setattr(card, "model_card", watched)
    plugin, cfg = trained(tmp_path)
    plugin.post_train_unload(cfg)
    assert marked == [True]
    assert (tmp_path / MARKER_FILE).exists()
    assert (tmp_path / card.CARD_FILE).exists() is (error is None)


def test_the_trainer_of_another_plugin_is_refused() -> None:
    from types import SimpleNamespace

    other = SimpleNamespace(args=SimpleNamespace(world_size=1))
    with pytest.raises(
        UserError, match=r"another plugin's \(types\.SimpleNamespace\).* list sftkey\.SFTKeyPlugin before"
    ):
        SFTKeyPlugin().post_trainer_create(SimpleNamespace(), other)


def test_mean_loss_is_that_of_all_steps() -> None:
    # 4 steps at 2.0, 4 at 1.0 and the last 2 at 0.5.
    logs = [{"step": 4, "loss": 2.0}, {"step": 8, "loss": 1.0}, {"step": 10, "loss": 0.5}]
    assert mean_loss(logs) == pytest.approx(1.3)


@pytest.mark.parametrize(("wanted", "found"), [(True, "torch.float32"), (None, "torch.bfloat16")])
def test_weights_are_widened_before_fsdp2_shards_them(wanted: bool | None, found: str) -> None:
    import torch
    from axolotl.utils.dict import DictDefault

    model = torch.nn.Linear(2, 2).bfloat16()
    SFTKeyPlugin().pre_lora_load(DictDefault({"sftkey_fp32_weights": wanted}), model)
    assert {str(parameter.dtype) for parameter in model.parameters()} == {found}
