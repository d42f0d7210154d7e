"""The section of a model card in an output directory: what led to the weights, and the scores once there are any."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from sftkey.stages.card import CARD_FILE, update_card
from sftkey.stages.stage import finished_stage
from support.finished_stages import finish, recipe, scores_for_the_hub, write_results

AXOLOTLS_CARD = (
    "---\nlibrary_name: transformers\ntags:\n- axolotl\n---\n\n# outputs/stage2\n\nWritten by the trainer.\n"
)


@pytest.fixture
def outputs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Both stages, as the plugin leaves them: the second one's marker has the first one's in it."""
    monkeypatch.chdir(tmp_path)
    root = Path("outputs")
    first = finish(root / "stage1", recipe("sft-tag", "outputs/stage1"), "stage1.yml")
    marker = json.loads((root / "stage1/sftkey_stage.json").read_text())
    config = recipe("key-tag", "outputs/stage2", base_model="outputs/stage1", learning_rate=1e-6)
    second = finish(root / "stage2", config, "stage2.yml", first)
    add_copy(root / "stage2", second, marker)
    return root


def add_copy(folder: Path, marker: dict[str, Any], before: dict[str, Any]) -> None:
    marker["after"]["stage"] = before
    (folder / "sftkey_stage.json").write_text(json.dumps(marker))


def card(folder: Path) -> str:
    return (folder / CARD_FILE).read_text()


def test_a_card_is_made_where_there_is_none(outputs: Path) -> None:
    update_card(outputs / "stage2")
    _, metadata, body = card(outputs / "stage2").split("---\n", 2)
    assert yaml.safe_load(metadata) == {
        "tags": ["sftkey", "axolotl", "key-tag"],
        "base_model": "Qwen/Qwen3-8B-Base",
        "datasets": ["openai/gsm8k"],
    }
    assert "# Qwen/Qwen3-8B-Base trained on openai/gsm8k with SFTKey-Tag\n" in body
    assert "| `learning_rate` | 5e-06 | 1e-06 |" in body
    assert "1. `sft-tag`" in body
    assert "2. `key-tag`" in body
    assert "| key-tag | openai/gsm8k main train | default (not pinned) | 7470 | tag in the text: 3 |" in body
    assert "Not evaluated." in body
    assert "axolotl 0.19.0" in body
    assert "in two stages, the second from the weights of the first." in body


def test_it_says_how_the_model_is_asked_as_it_was_scored(outputs: Path) -> None:
    update_card(outputs / "stage2")
    text = card(outputs / "stage2")
    serve = "vllm serve . --override-generation-config '{\"temperature\": 0}'"
    plugin = "--reasoning-parser-plugin ./sftkey_reasoning_parser.py --reasoning-parser sftkey"
    assert f"\n{serve} {plugin}\n" in text
    assert (
        "\npython convert_hf_to_gguf.py . --outfile model.gguf\nllama-server -m model.gguf --jinja --temp 0\n" in text
    )
    assert "\n```\n\nvLLM's messages have the thinking as `reasoning`; llama.cpp's as `reasoning_content`" in text
    assert "model.generate(**prompt, max_new_tokens=1024)" in text
    assert "merge-lora" not in text
    marker = json.loads((outputs / "stage2/sftkey_stage.json").read_text())
    marker["recipe"]["config"]["adapter"] = "lora"
    (outputs / "stage2/sftkey_stage.json").write_text(json.dumps(marker))
    (outputs / "stage2/adapter_config.json").write_text("{}")
    update_card(outputs / "stage2")
    assert "It is an adapter: `axolotl merge-lora` its recipe first." in card(outputs / "stage2")
    assert "generates by the settings of its base\nmodel, which may sample" in card(outputs / "stage2")
    assert "vllm serve merged" in card(outputs / "stage2")


def test_only_the_section_is_replaced(outputs: Path) -> None:
    path = outputs / "stage2" / CARD_FILE
    path.write_text(AXOLOTLS_CARD)
    update_card(outputs / "stage2")
    assert card(outputs / "stage2").startswith(AXOLOTLS_CARD)
    path.write_text(card(outputs / "stage2") + "\n## Mine\n\nKeep this.\n")
    write_results(outputs / "stage2/eval/model", "sftkey_gsm8k", 3, 0.83)
    update_card(outputs / "stage2")
    text = card(outputs / "stage2")
    assert text.startswith(AXOLOTLS_CARD)
    assert text.endswith("\n## Mine\n\nKeep this.\n")
    assert text.count("## Method") == text.count("## Scores") == 1
    assert "| key-tag | sftkey_gsm8k | 1319 | 0.8300 | 1.0000 | 0.8810 |" in text
    assert "Not evaluated." not in text
    update_card(outputs / "stage2")
    assert card(outputs / "stage2") == text


def test_the_scores_are_metadata_of_a_card_that_was_made_here(outputs: Path) -> None:
    path = outputs / "stage2" / CARD_FILE
    update_card(outputs / "stage2")
    # What the user adds to it stays.
    path.write_text(path.read_text().replace("tags:\n", "license: mit\ntags:\n- mine\n", 1) + "\nMine.\n")
    for acc, score in ((0.5, 0.65), (0.83, 0.881)):
        write_results(outputs / "stage2/eval/model", "sftkey_gsm8k", 3, acc)
        update_card(outputs / "stage2")
        _, metadata, body = card(outputs / "stage2").split("---\n", 2)
        assert yaml.safe_load(metadata) == {
            "license": "mit",
            "tags": ["mine", "sftkey", "axolotl", "key-tag"],
            "base_model": "Qwen/Qwen3-8B-Base",
            "datasets": ["openai/gsm8k"],
            "model-index": scores_for_the_hub(acc, score),
        }
        assert f"| key-tag | sftkey_gsm8k | 1319 | {acc:.4f} |" in body
        assert body.endswith("\nMine.\n")


def test_the_scores_go_where_the_trainer_leaves_a_place_for_them(outputs: Path) -> None:
    path = outputs / "stage2" / CARD_FILE
    start = "---\nlibrary_name: transformers\ntags:\n- generated_from_trainer\nmodel-index:\n- name: out/stage2\n  results: "
    path.write_text(f"{start}[]\n---\n\nWritten by the trainer.\n")
    update_card(outputs / "stage2")
    assert card(outputs / "stage2").startswith(f"{start}[]\n---\n\nWritten by the trainer.\n")
    own = "- {task: {type: t}, dataset: {type: d, name: n}, metrics: [{type: acc, name: accuracy, value: 0.1}]}"
    path.write_text(card(outputs / "stage2").replace("results: []", f"results:\n  {own}"))
    for acc, score in ((0.5, 0.65), (0.83, 0.881)):
        write_results(outputs / "stage2/eval/model", "sftkey_gsm8k", 3, acc)
        update_card(outputs / "stage2")
        text = card(outputs / "stage2")
        _, metadata, body = text.split("---\n", 2)
        found = yaml.safe_load(metadata)
        assert list(found) == ["library_name", "tags", "model-index"]
        ((index,), (expected,)) = found["model-index"], scores_for_the_hub(acc, score)
        assert index["name"] == "out/stage2"
        assert index["results"] == [yaml.safe_load(own)[0], *expected["results"]]
        assert body.startswith("\nWritten by the trainer.\n\n<!-- sftkey:")
        update_card(outputs / "stage2")
        assert card(outputs / "stage2") == text


@pytest.mark.parametrize(
    "metadata",
    [
        "model-index: [{name: a, results: [{task: 3}]}]\n",
        "tags: [sftkey\n",
        "- sftkey\n",
        "tags: 5\n",
        "model-index: sftkey\n",
        "5: 6\n",
    ],
)
def test_metadata_that_cannot_be_read_stays(outputs: Path, metadata: str) -> None:
    path = outputs / "stage2" / CARD_FILE
    path.write_text(f"---\n{metadata}---\n")
    update_card(outputs / "stage2")
    write_results(outputs / "stage2/eval/model", "sftkey_gsm8k", 3, 0.83)
    update_card(outputs / "stage2")
    assert card(outputs / "stage2").startswith(f"---\n{metadata}---\n")
    assert "| key-tag | sftkey_gsm8k | 1319 | 0.8300 |" in card(outputs / "stage2")


def test_a_users_own_task_and_a_results_file_of_a_stranger(outputs: Path) -> None:
    folder = outputs / "stage2/eval/model"
    write_results(folder, "sftkey_<b>|mine", 3, 0.5)
    (folder / "results_2026-01-05T00-00-00.000000.json").write_text('{"results": 3}')
    update_card(outputs / "stage2")
    _, metadata, body = card(outputs / "stage2").split("---\n", 2)
    (result,) = yaml.safe_load(metadata)["model-index"][0]["results"]
    assert result["dataset"] == {"name": "<b>|mine", "type": "<b>|mine"}
    assert "| key-tag | sftkey_\\<b>\\|mine | 1319 | 0.5000 |" in body


def test_it_needs_no_pandas(outputs: Path) -> None:
    write_results(outputs / "stage2/eval/model", "sftkey_gsm8k", 3, 0.83)
    code = (
        "import sys; from pathlib import Path; from sftkey.stages.card import update_card; "
        "update_card(Path('outputs/stage2')); assert not {'pandas', 'sftkey.report'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
    assert "0.8300" in card(outputs / "stage2")


def test_the_stage_before_may_be_gone_or_another_one(outputs: Path) -> None:
    write_results(outputs / "stage1/eval/model", "sftkey_gsm8k", 3, 0.79)
    update_card(outputs / "stage2")
    assert "| sft-tag | sftkey_gsm8k | 1319 | 0.7900 |" in card(outputs / "stage2")
    # Trained again with other settings: neither its settings nor its scores are those of the stage that led here.
    finish(
        outputs / "stage1",
        recipe("sft-tag", "outputs/stage1", learning_rate=1.0),
        "stage1.yml",
        finished_at="2026-02-02T00:00:00+00:00",
    )
    update_card(outputs / "stage2")
    text = card(outputs / "stage2")
    assert "| `learning_rate` | 5e-06 | 1e-06 |" in text
    assert "Not evaluated." in text
    first, _ = finished_stage(outputs / "stage2").chain
    assert first.recorded_only


def test_a_card_that_cannot_be_written_is_no_error(outputs: Path, caplog: pytest.LogCaptureFixture) -> None:
    (outputs / "stage2" / CARD_FILE).mkdir()
    with caplog.at_level(logging.WARNING):
        update_card(outputs / "stage2")
        update_card(outputs / "nothing")
        # What else may be wrong with a marker.
        finish(outputs / "odd", recipe("sft-tag", "outputs/odd"), "odd.yml", data=3)
        update_card(outputs / "odd")
    assert caplog.text.count("no section was written") == 3


@pytest.mark.parametrize("error", [TypeError("strange"), KeyError("strange"), RecursionError("strange")])
def test_a_card_that_cannot_be_rendered_is_no_error(
    outputs: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    from huggingface_hub import ModelCard

    def fail(*_: Any, **__: Any) -> None:
        raise error

    monkeypatch.setattr(ModelCard, "from_template", fail)
    with caplog.at_level(logging.WARNING):
        update_card(outputs / "stage2")
    assert "no section was written into README.md" in caplog.text
    assert "strange" in caplog.text


def test_a_cell_stays_in_its_row(outputs: Path) -> None:
    config = recipe("sft-tag", "outputs/odd", seed="4|2\n\n## Not a heading")
    finish(outputs / "odd", config, "odd.yml")
    update_card(outputs / "odd")
    assert "| `seed` | 4\\|2 ## Not a heading |" in card(outputs / "odd")


def test_short_trainings_and_local_data(outputs: Path) -> None:
    config = recipe("sft-tag", "outputs/own", datasets=[{"path": "my/rows.jsonl", "type": "sftkey.datasets.columns"}])
    finish(outputs / "own", config, "own.yml", training={"steps": 6, "seconds": 150.0, "world_size": 1})
    update_card(outputs / "own")
    assert "(`own.yml`; 6 steps; 2.5 min on 1 process(es))" in card(outputs / "own")
    assert "| sft-tag | my/rows.jsonl | local | 7470 |" in card(outputs / "own")
    assert "datasets:" not in card(outputs / "own")
