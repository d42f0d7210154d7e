"""What a stage starts from besides the end of another one: its checkpoints, and merged weights of an adapter."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any

import pytest
from sftkey.stages.chain import plan_chain
from sftkey.stages.completion import after_stage
from sftkey.stages.handover import start_from, template_fingerprint
from sftkey.stages.links import find_before, split_part
from sftkey.stages.marker import MARKER_FILE, SCHEMA, After, Marker
from sftkey.stages.readiness import is_merged
from sftkey.stages.same_data import data_identity
from sftkey.stages.stage import Stage
from sftkey.util.errors import UserError
from sftkey.util.files import write_atomically
from support.axolotl_recipes import stage2_of, write_recipe
from support.run_place import STAGE1


def finish(folder: Path, recipe: dict[str, Any], **changes: Any) -> None:
    """Leave the marker of a finished stage."""
    marker = {
        "schema": SCHEMA,
        "id": "1" * 32,
        "finished_at": "2026-01-01T00:00:00+00:00",
        "method": recipe["sftkey_method"],
        "base_model": recipe["base_model"],
        "tags": "text",
        "chat_template": template_fingerprint(recipe),
        "recipe": {"name": "stage1.yml", "config": recipe},
        "tokenizer": {"sha256": hashlib.sha256(b"{}").hexdigest()},
        "data": data_identity(recipe),
        **changes,
    }
    write_atomically(folder / MARKER_FILE, marker)


def checkpoint(folder: Path, *files: str) -> None:
    folder.mkdir(parents=True)
    for name in ("trainer_state.json", *files):
        (folder / name).write_text("{}")


class Chain:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.out = folder / "out" / "stage1"
        self.stage1 = {**STAGE1, "output_dir": "out/stage1"}
        self.stage2 = {**stage2_of(self.stage1), "axolotl_config_path": str(folder / "stage2.yml")}

    def write(self, **changes: Any) -> None:
        self.stage1 |= changes
        write_recipe(self.folder / "stage1.yml", self.stage1)
        write_recipe(self.folder / "stage2.yml", {k: v for k, v in self.stage2.items() if k != "axolotl_config_path"})

    def start(self, **changes: Any) -> tuple[Stage, dict[str, Any]]:
        cfg = {**self.stage2, **changes}
        before = start_from(cfg)
        assert before is not None
        return before, cfg


@pytest.fixture
def chain(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Chain:
    monkeypatch.chdir(tmp_path)
    chain = Chain(tmp_path)
    chain.write()
    return chain


@pytest.mark.parametrize(
    ("place", "parts"),
    [
        ("out/s1", ("out/s1", "")),
        ("out/s1/checkpoint-8", ("out/s1", "checkpoint-8")),
        ("./out/s1/checkpoint-8/", ("./out/s1", "checkpoint-8")),
        ("/s1/merged", ("/s1", "merged")),
        ("/merged", ("/", "merged")),
        ("merged", ("merged", "")),
        ("out/checkpoint-last", ("out/checkpoint-last", "")),
        ("out/unmerged", ("out/unmerged", "")),
    ],
)
def test_parts(place: str, parts: tuple[str, str]) -> None:
    assert split_part(place) == parts


@pytest.mark.parametrize("spelling", ["out/stage1/{}", "./out/stage1/{}/", "{cwd}/out/stage1/{}", "linked/{}"])
def test_a_checkpoint_of_a_finished_stage(chain: Chain, spelling: str) -> None:
    os.symlink(chain.out, chain.folder / "linked")
    for step in (4, 8):
        checkpoint(chain.out / f"checkpoint-{step}", "model.safetensors")
    named = spelling.format("checkpoint-4", cwd=chain.folder)
    with pytest.raises(UserError, match=r"has not finished.*; a checkpoint of it can be started from once it has"):
        chain.start(base_model=named)
    finish(chain.out, chain.stage1)
    before, cfg = chain.start(base_model=named)
    assert Path(cfg["base_model"]).resolve() == chain.out / "checkpoint-4"
    assert before.output_dir.resolve() == chain.out
    link = after_stage(before, cfg["base_model"])
    assert link is not None
    assert (Path(link.output_dir).name, link.id) == ("checkpoint-4", "1" * 32)
    with pytest.raises(
        UserError, match=r"checkpoint-5 is no whole checkpoint of stage1\.yml: there are checkpoint-4, checkpoint-8"
    ):
        chain.start(base_model=spelling.format("checkpoint-5", cwd=chain.folder))


def test_a_checkpoint_without_weights_of_its_own(chain: Chain) -> None:
    finish(chain.out, chain.stage1)
    checkpoint(chain.out / "checkpoint-4")
    with pytest.raises(UserError, match=r"checkpoint-4 holds no weights that a stage can start from \(sharded\?\)"):
        chain.start(base_model="out/stage1/checkpoint-4")
    chain.stage2["base_model"] = "out/stage1/checkpoint-4"
    chain.write()
    with pytest.raises(UserError, match="holds no weights"):
        plan_chain(chain.folder / "stage2.yml")


@pytest.mark.parametrize("key", ["base_model", "lora_model_dir"])
def test_a_checkpoint_of_an_adapter(chain: Chain, key: str) -> None:
    chain.write(adapter="lora")
    finish(chain.out, chain.stage1)
    place = chain.out / "checkpoint-4"
    checkpoint(place, "adapter_model.safetensors", "adapter_config.json", "tokenizer.json")
    (chain.out / "adapter_config.json").write_text("{}")
    before, cfg = chain.start(**{key: "out/stage1/checkpoint-4"}, adapter="lora")
    assert cfg["lora_model_dir"] == cfg["tokenizer_config"] == "out/stage1/checkpoint-4"
    assert cfg["base_model"] == STAGE1["base_model"]
    assert before.part == "checkpoint-4"
    with pytest.raises(UserError) as error:
        chain.start(base_model="out/stage1/checkpoint-4")
    assert "holds an adapter, but this recipe trains no adapter" in str(error.value)
    command = f"axolotl merge-lora {chain.folder / 'stage1.yml'} --lora-model-dir out/stage1/checkpoint-4"
    assert str(error.value).endswith(f"set base_model: out/stage1/merged:\n  {command}")


@pytest.mark.parametrize("base", ["out/stage1/merged", "out/stage1", None], ids=["merged", "adapter", "none"])
def test_full_weights_after_an_adapter(chain: Chain, base: str | None) -> None:
    chain.write(adapter="lora")
    finish(chain.out, chain.stage1)
    (chain.out / "adapter_config.json").write_text("{}")
    command = f"\n  axolotl merge-lora {chain.folder / 'stage1.yml'}"

    def refusal() -> str:
        with pytest.raises(UserError) as error:
            chain.start(base_model=base)
        return str(error.value)

    assert "there are no merged weights in out/stage1/merged" in refusal()
    assert refusal().endswith(f"keep base_model: out/stage1/merged, or set adapter: lora here too:{command}")
    (chain.out / "merged").mkdir()
    assert (
        "out/stage1/merged holds no sftkey_stage.json (merged by an earlier version, or the merge failed)" in refusal()
    )
    finish(chain.out / "merged", chain.stage1, id="0" * 32, merged={"adapter": "out/stage1"})
    assert "out/stage1/merged was merged from an earlier training of it" in refusal()
    finish(chain.out / "merged", chain.stage1, merged={"adapter": "out/stage1/checkpoint-4"})
    before, cfg = chain.start(base_model=base)
    assert is_merged(before)
    assert cfg["base_model"] == "out/stage1/merged"
    assert "lora_model_dir" not in cfg
    link = after_stage(before, cfg["base_model"])
    assert link is not None
    assert link.stage is not None
    assert link.stage.merged is not None
    assert link.stage.merged.adapter == "out/stage1/checkpoint-4"


def test_an_adapter_on_merged_weights(chain: Chain) -> None:
    chain.write(adapter="lora")
    finish(chain.out, chain.stage1)
    (chain.out / "adapter_config.json").write_text("{}")
    with pytest.raises(UserError, match="there are no merged weights in out/stage1/merged"):
        chain.start(base_model="out/stage1/merged", adapter="lora")
    finish(chain.out / "merged", chain.stage1, merged={"adapter": "out/stage1"})
    _, cfg = chain.start(base_model="out/stage1/merged", adapter="lora")
    assert cfg["base_model"] == "out/stage1/merged"
    assert "lora_model_dir" not in cfg


def test_merged_weights_that_were_moved_alone(chain: Chain) -> None:
    chain.write(adapter="lora")
    place = chain.folder / "moved" / "merged"
    finish(place, chain.stage1, merged={"adapter": "out/stage1"})
    (place / "model.safetensors").write_bytes(b"merged")
    before, cfg = chain.start(base_model=str(place))
    assert cfg["base_model"] == str(place)
    assert before.marker is not None
    assert before.marker.merged is not None


@pytest.mark.parametrize("name", ["merged", "checkpoint-7"])
def test_an_output_directory_may_have_such_a_name(chain: Chain, name: str) -> None:
    chain.write(output_dir=f"out/{name}")
    finish(chain.folder / "out" / name, chain.stage1)
    before, cfg = chain.start(base_model=f"out/{name}")
    assert cfg["base_model"] == f"out/{name}"
    assert before.part == ""


@pytest.mark.parametrize("part", ["checkpoint-4", "merged"])
@pytest.mark.parametrize("moved", [False, True])
def test_the_link_leads_to_the_stage_whose_part_it_was(chain: Chain, part: str, moved: bool) -> None:
    finish(chain.out, chain.stage1)
    own = Marker.read(chain.out)
    assert own is not None
    link = {
        **After(output_dir=f"out/stage1/{part}", id=own.id, finished_at=own.finished_at).model_dump(),
        "method": "x",
    }
    finish(chain.folder / "out" / "stage2", chain.stage2, after=link)
    if moved:
        os.rename(chain.folder / "out", chain.folder / "archive")
    folder = chain.folder / ("archive" if moved else "out")
    found, _ = find_before(Stage.read(folder / "stage2"), Stage._read_finished)
    assert found is not None
    assert found.output_dir.resolve() == folder / "stage1"


def test_a_merged_folder_is_no_stage_of_its_own_in_the_report(chain: Chain) -> None:
    from sftkey.report.collect import collect

    finish(chain.out, chain.stage1)
    finish(chain.out / "merged", chain.stage1, merged={"adapter": "out/stage1"})
    assert list(collect([chain.folder / "out"]).stages) == [chain.out]
    marker = json.loads((chain.out / MARKER_FILE).read_text())
    write_atomically(chain.out / MARKER_FILE, {**marker, "id": "2" * 32})
    assert list(collect([chain.folder / "out"]).stages) == [chain.out, chain.out / "merged"]
