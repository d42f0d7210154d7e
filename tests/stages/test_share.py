"""A bundle holds what another person needs, nothing that only works here, and no secret."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner, Result
from sftkey.recipes.checks import check_recipe
from sftkey.stages.bundle import MANIFEST_FILE, save_bundle
from sftkey.stages.marker import MARKER_FILE
from sftkey.stages.share import make_bundle
from sftkey.util.errors import UserError
from support.finished_stages import finish, recipe, scores_for_the_hub, write_results

SECRET = "hf_" + "aB3dE5fG7hJ9kL1mN3pQ5rS7tU9vW1xY3z"


@pytest.fixture
def outputs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Both stages of a chain, finished, under the working directory."""
    monkeypatch.chdir(tmp_path)
    root = Path("outputs/qwen3_8b/gsm8k")
    first = finish(root / "stage1", recipe("sft-tag", f"{root}/stage1"), "qwen3_8b_stage1.yml")
    config = recipe("key-tag", f"{root}/stage2", base_model=f"{root}/stage1", sftkey_after="../qwen3_8b_stage1.yml")
    finish(root / "stage2", config, "qwen3_8b_stage2.yml", first)
    return root


def change(folder: Path, **changes: Any) -> None:
    path = folder / MARKER_FILE
    marker = json.loads(path.read_text())
    marker["recipe"]["config"].update(changes)
    path.write_text(json.dumps(marker, indent=2, sort_keys=True))


def share(*arguments: str) -> Result:
    from sftkey.cli.main import sftkey

    return CliRunner().invoke(sftkey, ["share", *arguments])


def test_the_bundle_has_the_recipes_of_both_stages(outputs: Path, tmp_path: Path) -> None:
    result = share(str(outputs / "stage2"), "-o", "bundle")
    assert result.exit_code == 0, result.output
    files = sorted(str(path.relative_to("bundle")) for path in Path("bundle").rglob("*") if path.is_file())
    assert files == [
        "README.md",
        "recipes/qwen3_8b_stage1.yml",
        "recipes/qwen3_8b_stage2.yml",
        "requirements.txt",
        "sftkey_share.json",
    ]
    first, second = (yaml.safe_load(Path(f"bundle/{name}").read_text()) for name in files[1:3])
    for shared in (first, second):
        check_recipe(shared)
        assert shared["sftkey_requires"] == ">=0.1.0"
        assert shared["deepspeed"]["zero_optimization"]["stage"] == 3
        assert shared["learning_rate"] == 5e-6
    assert second["sftkey_after"] == "qwen3_8b_stage1.yml"
    assert second["base_model"] == first["output_dir"] == f"{outputs}/stage1"
    assert "sftkey_after" not in first
    assert "axolotl==0.19.0\n" in Path("bundle/requirements.txt").read_text()
    manifest = json.loads(Path("bundle", MANIFEST_FILE).read_text())
    assert manifest["strategy"] == "SFTKey-Tag"
    assert [stage["method"] for stage in manifest["stages"]] == ["sft-tag", "key-tag"]
    assert manifest["stages"][0]["data"][0]["rows_used"] == 7470
    assert str(tmp_path) not in "".join(path.read_text() for path in Path("bundle").rglob("*.*") if path.is_file())


def test_the_shared_second_stage_is_accepted_by_the_stage_chain(outputs: Path, tmp_path: Path) -> None:
    """What is shared runs: once its first stage has finished, the second one starts from it."""
    from sftkey.recipes.load import recipe_before
    from support.axolotl_recipes import write_recipe

    share(str(outputs / "stage2"), "-o", "bundle")
    elsewhere = tmp_path / "elsewhere"
    Path("bundle").rename(elsewhere)
    second = yaml.safe_load((elsewhere / "recipes/qwen3_8b_stage2.yml").read_text())
    path = write_recipe(elsewhere / "recipes/again.yml", second)
    assert recipe_before({**second, "axolotl_config_path": str(path)}) == elsewhere / "recipes/qwen3_8b_stage1.yml"


def test_paths_of_this_machine_become_relative(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    one, two = tmp_path / "runs/one", tmp_path / "runs/two"
    first = finish(one, recipe("sft-tag", str(one), dataset_prepared_path=str(tmp_path / "prepared")), "a_stage1.yml")
    config = recipe("key-tag", str(two), base_model=str(one), wandb_project="mine", hub_model_id="me/x")
    finish(two, config, "a_stage2.yml", first)
    bundle = make_bundle(two)
    texts = "".join(bundle.texts[name] for name in bundle.texts if name.startswith("recipes/"))
    assert str(tmp_path) not in texts
    assert "mine" not in texts
    second = yaml.safe_load(bundle.texts["recipes/a_stage2.yml"])
    assert (second["base_model"], second["output_dir"]) == ("outputs/a_stage1", "outputs/a_stage2")
    assert any("left out" in note and "hub_model_id, wandb_project" in note for note in bundle.notes)
    assert any("left out" in note and "dataset_prepared_path" in note for note in bundle.notes)


def test_outputs_that_were_moved_together(outputs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir("/")
    bundle = make_bundle(tmp_path / outputs / "stage2")
    assert bundle.recipes == ["qwen3_8b_stage1.yml", "qwen3_8b_stage2.yml"]


def test_a_stage_that_is_missing_unfinished_or_another_one(outputs: Path) -> None:
    marker = outputs / "stage1" / MARKER_FILE
    text = marker.read_text()
    marker.write_text(text.replace("2026-01-01", "2026-03-03"))
    with pytest.raises(UserError, match=r"finished at 2026-03-03.*started from what finished there at\s+2026-01-01"):
        make_bundle(outputs / "stage2")
    marker.unlink()
    with pytest.raises(UserError, match=r"started from .*stage1, and there is no sftkey_stage\.json there"):
        make_bundle(outputs / "stage2")
    with pytest.raises(UserError, match="hasn't finished"):
        make_bundle(outputs / "stage1")


def keep_a_copy(outputs: Path) -> None:
    """Let the second stage's marker have the first one's in it, as the plugin writes it."""
    path = outputs / "stage2" / MARKER_FILE
    marker = json.loads(path.read_text())
    marker["after"]["stage"] = json.loads((outputs / "stage1" / MARKER_FILE).read_text())
    path.write_text(json.dumps(marker, indent=2, sort_keys=True))


@pytest.mark.parametrize("then", ["gone", "another one"])
def test_an_output_directory_is_enough_by_itself(outputs: Path, then: str) -> None:
    keep_a_copy(outputs)
    whole = make_bundle(outputs / "stage2")
    assert not any("isn't there any more" in note for note in whole.notes)
    if then == "gone":
        (outputs / "stage1").rename("elsewhere")
    else:
        write_results(outputs / "stage1/eval/model", "sftkey_gsm8k", 3, 0.1)
        finish(
            outputs / "stage1", recipe("sft-tag", f"{outputs}/stage1", seed=7), "other.yml", finished_at="2026-05-05"
        )
    bundle = make_bundle(outputs / "stage2")
    for name in ("recipes/qwen3_8b_stage1.yml", "recipes/qwen3_8b_stage2.yml"):
        assert bundle.texts[name] == whole.texts[name]
    assert "qwen3_8b_stage1.yml: its output directory isn't there any more, or holds another stage" in str(bundle.notes)
    assert "Not evaluated." in bundle.texts["README.md"]


def test_a_secret_in_a_copied_marker_is_found(outputs: Path) -> None:
    change(outputs / "stage1", hub_token=SECRET)
    keep_a_copy(outputs)
    (outputs / "stage1").rename("elsewhere")
    with pytest.raises(UserError, match=r"stage2/sftkey_stage\.json, line \d+: a Hugging Face token"):
        make_bundle(outputs / "stage2")


def test_what_others_cannot_install_or_need_is_not_asked_of_them(outputs: Path) -> None:
    path = outputs / "stage2" / MARKER_FILE
    marker = json.loads(path.read_text())
    marker["versions"]["torch"] = "2.13.0+cu128"
    path.write_text(json.dumps(marker))
    change(outputs / "stage2", debug=False, debug_num_examples=0, shard=False, seed=0)
    bundle = make_bundle(outputs / "stage2")
    assert "torch==2.13.0\n" in bundle.texts["requirements.txt"]
    assert "torch 2.13.0+cu128" in bundle.texts["README.md"]
    shared = yaml.safe_load(bundle.texts["recipes/qwen3_8b_stage2.yml"])
    assert shared["seed"] == 0
    assert not {"debug", "debug_num_examples", "shard"} & shared.keys()


COMMITS = ("e53f048856ff4f594e959d75785d2c2d37b678ee", "0123456789abcdef0123456789abcdef01234567")


def set_commit(folder: Path, commit: str, **more: Any) -> None:
    path = folder / MARKER_FILE
    marker = json.loads(path.read_text())
    marker["data"][0]["commit"] = commit
    path.write_text(json.dumps({**marker, **more}))


def test_what_was_on_the_hub_is_pinned_to_its_commit(outputs: Path) -> None:
    set_commit(outputs / "stage1", COMMITS[0], base_model_commit=COMMITS[1])
    set_commit(outputs / "stage2", COMMITS[0])
    bundle = make_bundle(outputs / "stage2")
    first, second = (yaml.safe_load(bundle.texts[f"recipes/qwen3_8b_stage{number}.yml"]) for number in (1, 2))
    assert first["datasets"][0]["revision"] == second["datasets"][0]["revision"] == COMMITS[0]
    assert first["revision_of_model"] == COMMITS[1]
    assert "revision_of_model" not in second
    assert f"| openai/gsm8k main train | {COMMITS[0]} | 7470 |" in bundle.texts["README.md"]
    assert json.loads(bundle.texts[MANIFEST_FILE])["stages"][0]["data"][0]["commit"] == COMMITS[0]


def test_data_that_changed_between_the_stages_is_not_pinned(outputs: Path) -> None:
    for stage, commit in zip(("stage1", "stage2"), COMMITS, strict=True):
        set_commit(outputs / stage, commit)
    bundle = make_bundle(outputs / "stage2")
    assert "revision" not in str(yaml.safe_load(bundle.texts["recipes/qwen3_8b_stage2.yml"])["datasets"])
    assert any(note.startswith("openai/gsm8k changed between the stages") for note in bundle.notes)


@pytest.mark.parametrize(
    "secret",
    [
        {"hub_token": SECRET},
        {"wandb_run_id": SECRET},
        {"datasets": [{"path": f"https://me:{SECRET[3:]}@host/rows", "type": "sftkey.datasets.gsm8k"}]},
        {"default_system_message": "ask -----BEGIN " + "RSA PRIVATE KEY-----"},
    ],
    ids=["token", "in a key that is left out", "URL", "private key"],
)
@pytest.mark.parametrize("stage", ["stage1", "stage2"])
def test_a_secret_stops_it_before_anything_is_written(outputs: Path, secret: dict[str, Any], stage: str) -> None:
    change(outputs / stage, **secret)
    for options in (["--dry-run"], ["-o", "bundle"], ["--push-to-hub", "me/x"]):
        result = share(str(outputs / "stage2"), *options)
        assert result.exit_code == 1, result.output
        (value,) = secret.values()
        lines = (outputs / stage / MARKER_FILE).read_text().splitlines()
        line = next(number for number, text in enumerate(lines, 1) if str(value)[2:20] in text or SECRET[3:] in text)
        assert f"{outputs / stage / MARKER_FILE}, line {line}: " in result.output
        assert SECRET[3:] not in result.output
        assert not Path("bundle").exists()


def test_the_card_has_method_settings_data_and_the_newest_scores(outputs: Path) -> None:
    write_results(outputs / "stage2/eval/model", "sftkey_gsm8k", 3, 0.8)
    write_results(outputs / "stage2/eval/model", "sftkey_gsm8k", 4, 0.83)
    write_results(outputs / "stage2/checkpoint-88/eval", "sftkey_gsm8k", 5, 0.1)
    write_results(outputs / "stage1/eval/model", "sftkey_gsm8k", 3, 0.79)
    card = make_bundle(outputs / "stage2").texts["README.md"]
    _, metadata, body = card.split("---\n", 2)
    assert yaml.safe_load(metadata) == {
        "tags": ["sftkey", "axolotl", "key-tag"],
        "base_model": "Qwen/Qwen3-8B-Base",
        "datasets": ["openai/gsm8k"],
        "model-index": scores_for_the_hub(acc=0.83, score=0.881),
    }
    assert "# Qwen/Qwen3-8B-Base trained on openai/gsm8k with SFTKey-Tag" in body
    assert "| `learning_rate` | 5e-06 | 5e-06 |" in body
    assert "| openai/gsm8k main train | default (not pinned) | 7470 | tag in the text: 3 |" in body
    assert "| key-tag | sftkey_gsm8k | 1319 | 0.8300 | 1.0000 | 0.8810 |" in body
    assert "| sft-tag | sftkey_gsm8k | 1319 | 0.7900 |" in body
    assert "0.8000" not in body
    assert "0.1000" not in body
    assert "2.00 h on 8 process(es)" in body
    stages = [body.index(f"axolotl train recipes/qwen3_8b_stage{number}.yml") for number in (1, 2)]
    assert stages == sorted(stages)
    assert "--tasks sftkey_gsm8k --apply_chat_template" in body


def test_what_a_marker_says_stays_text_in_every_file(outputs: Path) -> None:
    path = outputs / "stage2" / MARKER_FILE
    marker = json.loads(path.read_text())
    evil = "x\n```\n# Install [me](http://evil) <script>\nbase_model: evil"
    marker.update(method=evil[:90], finished_at="2026\nbase_model: evil")
    marker["versions"] |= {"torch": "2.0\n--index-url http://evil"}
    marker["recipe"]["config"] |= {"output_dir": "outputs/a b`$(reboot)`", "optimizer": evil}
    path.write_text(json.dumps(marker))
    bundle = make_bundle(outputs / "stage2")
    assert yaml.safe_load(bundle.texts["recipes/qwen3_8b_stage2.yml"])["base_model"] == f"{outputs}/stage1"
    assert "torch==2.0\n" in bundle.texts["requirements.txt"]
    assert "evil" not in bundle.texts["requirements.txt"]
    _, metadata, card = bundle.texts["README.md"].split("---\n", 2)
    assert yaml.safe_load(metadata)["base_model"] == "Qwen/Qwen3-8B-Base"
    assert [line for line in card.splitlines() if line.startswith("```")] == ["```", "```"]
    assert card.count("\n# ") == 1
    assert "[me](" not in card
    assert "\\<script>" in card
    assert not re.search(r"(?<!\\)<script>", card)
    assert "pretrained='outputs/a b" not in card
    assert "'pretrained=outputs/a b" in card


def test_without_an_evaluation_the_card_says_so(outputs: Path) -> None:
    assert "Not evaluated." in make_bundle(outputs / "stage1").texts["README.md"]


def test_weights_only_when_asked(outputs: Path) -> None:
    with pytest.raises(UserError, match=r"holds no \.safetensors"):
        make_bundle(outputs / "stage2", weights=True)
    for name in (
        "model.safetensors",
        "config.json",
        "tokenizer.json",
        "training_args.bin",
        "optimizer.pt",
        "debug.log",
    ):
        (outputs / "stage2" / name).write_text("{}")
    (outputs / "stage2/checkpoint-88").mkdir()
    (outputs / "stage2/checkpoint-88/model.safetensors").write_text("{}")
    assert not make_bundle(outputs / "stage2").copies
    assert set(make_bundle(outputs / "stage2", weights=True).copies) == {
        "model.safetensors",
        "config.json",
        "tokenizer.json",
    }
    result = share(str(outputs / "stage2"), "--weights")
    assert result.exit_code == 0, result.output
    assert (outputs / "stage2/share/model.safetensors").read_text() == "{}"
    assert "library_name: transformers" in (outputs / "stage2/share/README.md").read_text()
    # A config that somebody put a token into is found as well.
    (outputs / "stage2/config.json").write_text('{\n "token": "' + SECRET + '"}')
    result = share(str(outputs / "stage2"), "--weights")
    assert result.exit_code == 1
    assert "config.json, line 2: a Hugging Face token" in result.output


def test_a_dry_run_writes_nothing(outputs: Path, tmp_path: Path) -> None:
    before = sorted(tmp_path.rglob("*"))
    result = share(str(outputs / "stage2"), "--dry-run", "--push-to-hub", "me/qwen3")
    assert result.exit_code == 0, result.output
    assert sorted(tmp_path.rglob("*")) == before
    for text in ("recipes/qwen3_8b_stage1.yml", "## Method", "would go to me/qwen3 (private, if new)"):
        assert text in result.output


def test_a_folder_with_something_else_is_left_alone(outputs: Path) -> None:
    bundle = make_bundle(outputs / "stage2")
    save_bundle(bundle, Path("bundle"))
    Path("bundle/old.txt").write_text("from an earlier bundle")
    save_bundle(bundle, Path("bundle"))
    assert not Path("bundle/old.txt").exists()
    Path("mine").mkdir()
    Path("mine/thesis.txt").write_text("x")
    with pytest.raises(UserError, match="not empty and holds no earlier bundle"):
        save_bundle(bundle, Path("mine"))
    assert Path("mine/thesis.txt").exists()


class FakeHub:
    """Takes the place of `huggingface_hub.HfApi` and keeps what it was asked for."""

    calls: list[tuple[str, Any]]

    def create_repo(self, repo_id: str, **options: Any) -> str:
        FakeHub.calls.append(("create_repo", {"repo_id": repo_id, **options}))
        return f"https://huggingface.co/{repo_id}"

    def upload_folder(self, *, folder_path: str, **options: Any) -> None:
        files = {str(path.relative_to(folder_path)) for path in Path(folder_path).rglob("*") if path.is_file()}
        FakeHub.calls.append(("upload_folder", {"files": files, **options}))


@pytest.mark.parametrize("public", [False, True])
def test_push(outputs: Path, monkeypatch: pytest.MonkeyPatch, public: bool) -> None:
    FakeHub.calls = []
    monkeypatch.setattr("huggingface_hub.HfApi", FakeHub)
    result = share(str(outputs / "stage2"), "--push-to-hub", "me/qwen3", *(["--public"] if public else []))
    assert result.exit_code == 0, result.output
    (_, created), (_, uploaded) = FakeHub.calls
    assert created == {"repo_id": "me/qwen3", "private": not public, "exist_ok": True, "repo_type": "model"}
    assert uploaded["repo_id"] == "me/qwen3"
    assert uploaded["files"] >= {"README.md", "recipes/qwen3_8b_stage1.yml", "recipes/qwen3_8b_stage2.yml"}
    assert not any(name.endswith(".safetensors") for name in uploaded["files"])
    assert "https://huggingface.co/me/qwen3" in result.output
    assert not (outputs / "stage2/share").exists()


def test_a_push_that_cannot_be_is_a_message(outputs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    with monkeypatch.context() as unreachable:
        unreachable.setenv("NO_PROXY", "127.0.0.1")
        unreachable.setattr(constants, "HF_HUB_OFFLINE", False)
        unreachable.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
        result = share(str(outputs / "stage2"), "--push-to-hub", "me/qwen3")
        assert result.exit_code == 1
        assert isinstance(result.exception, SystemExit)
        assert re.search(r"^Error: not uploaded to me/qwen3: .*refused", result.output, re.MULTILINE)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    for repo, message in (("me/qwen3", "offline mode is enabled"), ("me/my/qwen3", "Repo id must be in the form")):
        result = share(str(outputs / "stage2"), "--push-to-hub", repo)
        assert result.exit_code == 1
        assert f"Error: not uploaded to {repo}: " in result.output
        assert message in result.output
        assert "hf auth login" in result.output


@pytest.mark.parametrize("name", ["model.safetensors", "config.json", "tokenizer.json", MARKER_FILE])
def test_a_link_out_of_the_directory_is_not_followed(outputs: Path, name: str) -> None:
    folder = outputs / "stage2"
    for file in ("model.safetensors", "config.json"):
        (folder / file).write_text("{}")
    elsewhere = Path("elsewhere.json")
    (folder / name).touch()
    (folder / name).rename(elsewhere)
    (folder / name).symlink_to(elsewhere.resolve())
    with pytest.raises(UserError, match=rf"not shared: .*{name} is a link"):
        make_bundle(folder, weights=True)
    # Within the directory a link is only another name.
    (folder / name).unlink()
    elsewhere.rename(folder / "kept")
    (folder / name).symlink_to("kept")
    assert make_bundle(folder, weights=True)


def test_results_that_are_a_link_out_of_the_directory_are_left_out(outputs: Path) -> None:
    write_results(Path("elsewhere"), "sftkey_gsm8k", 3, 0.8)
    (results,) = Path("elsewhere").iterdir()
    (outputs / "stage2" / results.name).symlink_to(results.resolve())
    bundle = make_bundle(outputs / "stage2")
    assert "Not evaluated." in bundle.texts["README.md"]
    assert any(note.startswith(f"{results.name}: a link") for note in bundle.notes)


@pytest.mark.parametrize(
    "file", ["tokenizer.json", "vocab.json", "merges.txt", "added_tokens.json", "chat_template.jinja"]
)
def test_every_text_that_is_shipped_is_searched(outputs: Path, file: str) -> None:
    folder = outputs / "stage2"
    (folder / "model.safetensors").write_text("{}")
    (folder / file).write_text("{}")
    assert file in make_bundle(folder, weights=True).copies
    (folder / file).write_text('{"model": "x",\n"note": "' + SECRET + '"}')
    with pytest.raises(UserError, match=rf"{file}, line 2: a Hugging Face token"):
        make_bundle(folder, weights=True)


@pytest.mark.parametrize(
    "where", ["recipe name", "folder", "key", "wrong shape", "circle", "deepspeed", "output_dir", "missing stage"]
)
def test_no_error_repeats_a_secret(outputs: Path, where: str) -> None:
    folder = outputs / "stage2"
    (folder / "model.safetensors").write_text("{}")
    marker = json.loads((folder / MARKER_FILE).read_text())
    if where == "recipe name":
        marker["recipe"]["name"] = f"{SECRET}.yml"
    elif where == "folder":
        marker["recipe"]["config"]["hub_token"] = SECRET
        folder = folder.rename(outputs / SECRET)
    elif where == "key":
        marker["recipe"]["config"][SECRET] = {SECRET: 1}
    elif where == "wrong shape":
        marker["versions"] = {SECRET: [SECRET]}
    elif where == "circle":
        marker["after"] = {"output_dir": SECRET, "stage": {**marker, "id": "x", "after": {"output_dir": SECRET}}}
    elif where == "deepspeed":
        marker["recipe"]["config"]["deepspeed"] = f"{SECRET}.json"
    elif where == "output_dir":
        marker["recipe"]["config"]["output_dir"] = f"outputs/{SECRET}"
    else:
        marker["after"] = {"output_dir": SECRET}
    (folder / MARKER_FILE).write_text(json.dumps(marker))
    for options in ([], ["--dry-run"], ["--weights"]):
        result = share(str(folder), *options)
        assert result.exit_code == 1, result.output
        assert result.exception is not None
        assert "a Hugging Face token" in result.output
        error: BaseException | None = result.exception
        while error is not None:
            assert SECRET[3:] not in str(error)
            error = error.__cause__ or error.__context__
        assert SECRET[3:] not in result.output
