"""A written recipe says what was asked, keeps its comments and stands alone."""

from __future__ import annotations

import re
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from sftkey.datasets.registry import DATASETS, dataset
from sftkey.recipes.catalogue import shipped_recipe, shipped_recipes
from sftkey.recipes.checks import check_recipe
from sftkey.recipes.matrix import PAPER_MODELS
from sftkey.recipes.writing import model_slug, write_recipe
from sftkey.util.errors import UserError


def known() -> dict[str, None]:
    return dict.fromkeys(
        {
            "learning_rate",
            "num_epochs",
            "save_strategy",
            "deepspeed",
            "sftkey_tags",
            "lora_target_modules",
            "load_in_4bit",
            "notes",
        }
    )


def write(name: str, *overrides: str, **options: Any) -> Any:
    return write_recipe(shipped_recipe(name), overrides=overrides, known_keys=known, **options)


@pytest.mark.parametrize("recipe", shipped_recipes(), ids=lambda recipe: recipe.name)
def test_unchanged_but_for_the_deepspeed_file(recipe: Any) -> None:
    written = write_recipe(recipe)
    assert written.config == dict(recipe.config) | (
        {"deepspeed": written.config["deepspeed"]} if "deepspeed" in recipe.config else {}
    )
    assert written.file_name == recipe.path.name
    if "deepspeed" in recipe.config:
        assert written.config["deepspeed"]["zero_optimization"]["stage"] == 3
    # Below the first lines, every line of the shipped file is there, in order: comments and empty lines too.
    body = recipe.text[recipe.text.index("\nbase_model:") + 1 :].splitlines()
    lines = iter(written.text.splitlines())
    assert all(line in lines for line in body if not line.startswith("deepspeed:"))


SHARDED = [recipe.name for recipe in shipped_recipes() if "deepspeed" in recipe.config]


@pytest.mark.parametrize("name", SHARDED)
def test_every_recipe_for_several_gpus_has_a_form_for_fsdp2(name: str) -> None:
    zero3, written = write(name, sharding="zero3"), write(name, sharding="fsdp2")
    assert zero3.config == write(name).config
    for ours, theirs in zip(written.chain, zero3.chain, strict=True):
        check_recipe({key: value for key, value in ours.config.items() if key != "sftkey_after"})
        changed = {key for key in {**ours.config, **theirs.config} if ours.config.get(key) != theirs.config.get(key)}
        assert changed == {
            *("deepspeed", "gradient_checkpointing", "fsdp_version", "fsdp_config", "sftkey_fp32_weights")
        }
        assert ours.config["fsdp_version"] == 2
        assert ours.config["fsdp_config"]["activation_checkpointing"] is True
        assert "40 GB each, FSDP2.\n" in ours.text
        assert "ZeRO" not in ours.text
        assert ours.command == theirs.command.replace("zero3", "fsdp2")
        assert ours.memory.fits
        assert [note for note in ours.notes if note.startswith("memory: at most about ")]


@pytest.mark.parametrize("sharding", ["zero3", "fsdp2"])
@pytest.mark.parametrize("name", ["qwen3_8b_lora_stage2", "smollm2_135m_stage1", "demo_stage1"])
def test_a_recipe_for_one_device_has_nothing_to_shard(name: str, sharding: str) -> None:
    with pytest.raises(UserError, match=f"--sharding: {name} is written for one device"):
        write(name, sharding=sharding)


@pytest.mark.parametrize(
    "name", ["qwen3_8b_stage1", "qwen2_5_1_5b_sftkey_plain", "qwen3_8b_lora_stage2", "qwen3_8b_think_stage2"]
)
@pytest.mark.parametrize("data", DATASETS)
def test_every_data_set(name: str, data: str) -> None:
    written = write(name, dataset_name=data)
    published = dataset(data)
    for stage in written.chain:
        (entry,) = stage.config["datasets"]
        assert entry["path"] == published.path
        assert entry.get("name") == published.config
        assert entry.get("revision") == published.revision
        assert entry["split"] == published.train_split
        assert entry["type"] == f"sftkey.datasets.{data}"
        assert stage.config["sequence_len"] == published.sequence_len
        assert stage.config["micro_batch_size"] * stage.config["gradient_accumulation_steps"] == 32
        assert f"/{data}/" in stage.config["output_dir"]
        assert stage.text.startswith(f"# {shipped_recipe(name).model.rpartition('/')[2]} on {published.title}, ")
        # The data in memory stays what the shipped recipe has on the same GPU.
        tokens = stage.config["micro_batch_size"] * stage.config["sequence_len"]
        assert tokens <= max(shipped_recipe(name).config["micro_batch_size"] * 1024, published.sequence_len)
        check_recipe(stage.config)
    if written.before:
        assert written.config["sftkey_after"] == written.before.file_name
        assert written.config["base_model"] == written.before.config["output_dir"]


def test_another_model_and_place() -> None:
    written = write(
        "qwen3_8b_stage2", model_id="Qwen/Qwen3-4B-Base", output_root="/data/runs/", dataset_name="openbookqa"
    )
    assert written.file_name == "qwen3_4b_openbookqa_stage2.yml"
    assert written.config["output_dir"] == "/data/runs/qwen3_4b/openbookqa/stage2"
    assert written.config["base_model"] == "/data/runs/qwen3_4b/openbookqa/stage1"
    assert written.config["dataset_prepared_path"] == "/data/runs/prepared"
    assert written.before.config["base_model"] == "Qwen/Qwen3-4B-Base"
    assert written.text.startswith("# Qwen3-4B-Base on OpenBookQA, Stage 2")
    assert any("isn't known" in note for note in written.notes)
    assert (
        write("qwen3_8b_lora_key", model_id="Qwen/Qwen3-4B-Base")
        .config["output_dir"]
        .startswith("outputs/qwen3_4b_lora/")
    )


@pytest.mark.parametrize("kind", ["", "_lora"])
def test_another_model_that_thinks(kind: str) -> None:
    """Its name says the format: the model's recipes in the paper's format are others."""
    written = write(f"qwen3_8b_think{kind}_stage2", model_id="Qwen/Qwen3-4B")
    assert [stage.file_name for stage in written.chain] == [
        f"qwen3_4b_think{kind}_stage1.yml",
        f"qwen3_4b_think{kind}_stage2.yml",
    ]
    for stage in written.chain:
        assert stage.config["output_dir"].startswith(f"outputs/qwen3_4b_think{kind}/gsm8k/stage")
        assert stage.text.startswith("# Qwen3-4B on GSM8K, Stage ")
        assert stage.config["sftkey_format"] == "think"
        assert stage.config["chat_template"] == "tokenizer_default"


def test_overrides_are_yaml_and_reach_every_stage() -> None:
    overrides = ("learning_rate=1e-5", "datasets.0.split=train[:100]", "save_strategy=no", "lora_target_modules=[a, b]")
    written = write("qwen3_8b_stage2", *overrides, "output_dir=elsewhere", "sftkey_tags=tokens")
    for stage in written.chain:
        assert stage.config["learning_rate"] == 1e-5
        assert stage.config["datasets"][0]["split"] == "train[:100]"
        assert stage.config["save_strategy"] == "no"
        assert stage.config["lora_target_modules"] == ["a", "b"]
        assert stage.config["sftkey_tags"] == "tokens"
    assert written.config["output_dir"] == "elsewhere"
    assert written.before.config["output_dir"] == "outputs/qwen3_8b/gsm8k/stage1"


plain = st.one_of(
    st.text(max_size=30).filter(lambda text: text.isprintable()),
    st.floats(allow_nan=False, allow_infinity=False),
    st.integers(),
    st.booleans(),
)


@given(st.one_of(plain, st.lists(plain, max_size=3), st.dictionaries(st.sampled_from("abc"), plain, max_size=3)))
def test_any_value_is_read_back_by_a_yaml_1_1_reader(value: Any) -> None:
    import json

    written = write("smollm2_135m_stage1", f"notes={json.dumps(value, ensure_ascii=False)}")
    assert yaml.safe_load(written.text)["notes"] == value


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["learnin_rate=1"], "learnin_rate: no key of Axolotl or of this plugin; did you mean 'learning_rate'"),
        (["learning_rate"], "'learning_rate' is not of the form key=value"),
        (["=1"], "not of the form"),
        (["datasets.1.split=x"], "datasets.1: the list has the entries 0 to 0"),
        (["datasets.path=x"], "datasets.path: the list has the entries 0 to 0"),
        (["seed.x=1"], "seed.x: seed is 42, which has no keys"),
        (["seed=[1"], "seed: '\\[1' is not a YAML value"),
    ],
)
def test_what_cannot_be_set(overrides: list[str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        write("qwen3_8b_sft", *overrides)


def test_a_comment_stays_while_it_holds() -> None:
    rate, batch = "# The paper trains all weights, at 5.0e-6;", "# 32 sequences per device, as in the paper"
    text = write("qwen3_8b_lora_stage1", "seed=7").text
    assert f"{rate} an adapter needs a larger rate. This one was not tuned.\nlearning_rate: 1.0e-4\n" in text
    assert batch in text
    text = write("qwen3_8b_lora_stage1", "learning_rate=2e-4", "gradient_accumulation_steps=1").text
    assert rate not in text
    assert batch not in text
    # The recipe that is shipped is another object.
    assert "learning_rate: 1.0e-4" in write("qwen3_8b_lora_stage1").text


def test_a_line_break_in_an_override_is_no_key() -> None:
    config = write("smollm2_135m_stage1", "notes='a\n\n  b'").config
    assert config["notes"] == "a\nb"
    assert config["seed"] == 42


def test_the_demo_keeps_its_data() -> None:
    for options in ({"dataset_name": "gsm8k"}, {"model_id": "x/y"}, {"output_root": "x"}):
        with pytest.raises(UserError, match="demo_stage1"):
            write("demo_stage1", **options)


def test_more_than_fits_is_noted() -> None:
    (note,) = write("qwen3_8b_stage1", "micro_batch_size=64").notes
    assert "more than 40 GB; lower micro_batch_size" in note
    (note,) = write("qwen3_8b_stage1").notes
    assert note == "memory: at most about 29 GiB on each of 8 GPUs (an estimate)"


def test_no_deepspeed_file_here_is_no_estimate() -> None:
    """The file may be where the recipe is run."""
    written = write("qwen3_8b_stage2", "deepspeed=my.json")
    for stage in written.chain:
        assert stage.config["deepspeed"] == "my.json"
        (note,) = stage.notes
        assert note.startswith("memory: no estimate (deepspeed: my.json: there is no such file, ")
    demo = write("demo_stage1", "deepspeed=my.json")
    assert (demo.config["deepspeed"], demo.notes) == ("my.json", ())


def test_what_does_not_fit_is_not_said_to_fit() -> None:
    """OpenR1-Math's rows are too long for an adapter on one 24 GB GPU, unless the model is loaded in 4 bits."""
    written = write("qwen3_8b_lora_stage2", dataset_name="openr1_math")
    note = written.notes[-1]
    assert re.search(r"about 29 GiB on one GPU .*: more than 24 GB; lower sequence_len, or set adapter=qlora", note)
    for stage in written.chain:
        assert "# Memory: about 29 GiB per GPU by the estimate, more than these have.\n" in stage.text
        assert "fit 24 GB" not in stage.text
    changes = re.search(r"set (adapter=\S+ load_in_4bit=\S+) \(about (\d+) GiB\)", note)
    assert changes is not None
    smaller = write("qwen3_8b_lora_stage2", *changes[1].split(), dataset_name="openr1_math")
    assert smaller.notes[-1] == f"memory: at most about {changes[2]} GiB on one GPU (an estimate)"
    assert "# Memory:" not in smaller.text
    assert "in micro-batches that fit 24 GB" in smaller.text


@pytest.mark.parametrize("model", PAPER_MODELS)
@pytest.mark.parametrize("data", DATASETS)
def test_every_cell_of_the_papers_table_fits_its_gpus(model: str, data: str) -> None:
    for stage in ("sft", "stage2", "key", "sftkey_plain"):
        written = write(f"{model}_{stage}", dataset_name=data)
        assert any(
            re.fullmatch(r"memory: at most about \d+ GiB on each of 8 GPUs \(an estimate\)", note)
            for note in written.notes
        )
        assert "# Memory:" not in written.text


@pytest.mark.parametrize(
    ("model", "slug"),
    [
        ("Qwen/Qwen2.5-1.5B", "qwen2_5_1_5b"),
        ("HuggingFaceTB/SmolLM3-3B-Base", "smollm3_3b"),
        ("/models/My Model v2/", "my_model_v2"),
        ("/", "model"),
    ],
)
def test_model_slug(model: str, slug: str) -> None:
    assert model_slug(model) == slug
