"""Writes a shipped recipe for another model, data set, place or setting, with its comments kept.

What is written stands alone: the DeepSpeed settings are in it, and a second stage names a first stage that is written
with it (or can be, by the command in the notes), never a file of the installation.
"""

from __future__ import annotations

import difflib
import io
import json
import re
import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap
from ruamel.yaml.representer import RoundTripRepresenter
from ruamel.yaml.scalarstring import DoubleQuotedScalarString

from sftkey.datasets.base import ReasoningDataset
from sftkey.datasets.registry import DATASETS, dataset
from sftkey.recipes.catalogue import ShippedRecipe, deepspeed_settings
from sftkey.recipes.memory import ARCHITECTURES, GIB, Architecture, estimate_memory
from sftkey.recipes.settings import Role, has_role
from sftkey.util.errors import UserError
from sftkey.util.version import __version__

SEQUENCES_PER_DEVICE = 32
"""The paper's batch (section 3)."""

SEQUENCE_LENGTHS: Mapping[str, int] = {
    "gsm8k": 1024,
    "openr1_math": 16384,
    "openbookqa": 1024,
    "cot_collection": 2048,
}
"""``sequence_len`` by data set; the paper names none. OpenR1-Math's traces were generated up to 16k tokens."""

TITLES: Mapping[str, str] = {
    "gsm8k": "GSM8K",
    "openr1_math": "OpenR1-Math-220k",
    "openbookqa": "OpenBookQA",
    "cot_collection": "CoT-Collection",
}

_OUTPUT_DIR = re.compile(r"outputs/(?P<model>[^/]+)/(?P<dataset>[^/]+)/(?P<stage>[^/]+)")


@dataclass(frozen=True)
class WrittenRecipe:
    """A recipe ready to be saved.

    Attributes:
        file_name: What the file should be called; a stage after it refers to it by this name.
        text: The YAML.
        config: What the YAML says.
        notes: Remarks for the user.
        before: The stage that it starts from.
        command: The command that writes this recipe.
        memory_note: The one of the notes that is about memory; ``None`` where nothing is known.
        fits: Whether it fits the GPUs that it is written for; ``False`` too where that isn't known.
    """

    file_name: str
    text: str
    config: Mapping[str, Any]
    notes: tuple[str, ...]
    before: WrittenRecipe | None
    command: str
    memory_note: str | None = None
    fits: bool = False

    @property
    def chain(self) -> tuple[WrittenRecipe, ...]:
        """All recipes from the first stage to this one."""
        return (*(self.before.chain if self.before else ()), self)


def write_recipe(
    recipe: ShippedRecipe,
    *,
    dataset_name: str | None = None,
    model_id: str | None = None,
    output_root: str | None = None,
    overrides: Sequence[str] = (),
    file_name: str | None = None,
    known_keys: Callable[[], set[str]] | None = None,
) -> WrittenRecipe:
    """Write a shipped recipe, changed as asked, and the stages before it likewise.

    Args:
        recipe: The shipped recipe.
        dataset_name: One of `DATASETS`, in place of the recipe's own.
        model_id: A base model (Hub name or folder) in place of the recipe's own.
        output_root: The folder in place of ``outputs``.
        overrides: ``key=value`` pairs; the value is YAML, the key may be a path such as ``datasets.0.split``. They hold for
            every stage, except for keys that belong to one stage only, such as ``output_dir``.
        file_name: What the file is called; by default model, data set (unless GSM8K) and stage.
        known_keys: Called for the keys that Axolotl knows when a key isn't in the recipe yet.

    Raises:
        UserError: An override isn't of that form, its key is unknown, or the recipe isn't made for other models or data.
    """
    changes = [_parse_override(override) for override in overrides]
    options = [
        *(("--dataset", dataset_name) if dataset_name else ()),
        *(("--model-id", model_id) if model_id else ()),
        *(("--output-root", output_root) if output_root else ()),
    ]
    command = shlex.join(["axolotl", "sftkey", "recipe", recipe.name, *options, *overrides])

    document = _yaml().load(recipe.text)
    names = _names(recipe, dataset_name, model_id)
    own_name = file_name or _file_name(recipe, names)
    before = None
    if recipe.before is not None:
        named = dict(changes).get("sftkey_after")
        before = write_recipe(
            recipe.before,
            dataset_name=dataset_name,
            model_id=model_id,
            output_root=output_root,
            overrides=[
                override
                for override, (key, _) in zip(overrides, changes, strict=True)
                if not has_role(key.split(".")[0], Role.ONE_STAGE)
            ],
            file_name=_before_name(str(named) if named else None, file_name, recipe, recipe.before, names),
            known_keys=known_keys,
        )
        if before.file_name == own_name:
            raise UserError(f"{own_name} can't be both stages of {recipe.name}; choose another file name")
        document["sftkey_after"] = before.file_name
    elif model_id:
        document["base_model"] = model_id
    _move(document, recipe, names, output_root)
    if before is not None:
        document["base_model"] = before.config["output_dir"]
    notes: list[str] = []
    if dataset_name:
        notes += _change_dataset(document, dataset(dataset_name), recipe.dataset)
    if document.get("deepspeed"):
        settings = deepspeed_settings(document["deepspeed"], recipe.path.parent)
        _keep_comment_after(document, "deepspeed", _commented(settings))
    for key, value in changes:
        _override(document, key, value, known_keys)
    memory = _memory(recipe, document, model_id)
    notes += [memory.note] if memory.note else []
    body = _body(document)
    if memory.too_large is not None:
        body = body.replace(f" in micro-batches that fit {recipe.gpu_gigabytes} GB.", " in micro-batches.", 1)
    text = _header(recipe, names, file_name or "<this file>", command, before, memory.too_large) + body
    config = yaml.safe_load(text)
    if config != _plain(document):
        raise AssertionError(f"{recipe.name} did not survive being written; its text would be read as {config}")
    return WrittenRecipe(own_name, text, config, tuple(notes), before, command, memory.note, memory.fits)


def model_slug(model_id: str) -> str:
    """The name of a model in recipe and output names: its last part, lower case, no ``-Base``, other signs as ``_``."""
    name = model_id.rstrip("/").rpartition("/")[2].lower()
    return re.sub(r"[^a-z0-9]+", "_", name.removesuffix("-base")).strip("_") or "model"


@dataclass(frozen=True)
class _Names:
    """What a recipe is called after the change, and was before."""

    model: str
    model_title: str
    dataset: str
    dataset_title: str
    stage: str
    fixed: bool


def _names(recipe: ShippedRecipe, dataset_name: str | None, model_id: str | None) -> _Names:
    found = _OUTPUT_DIR.fullmatch(str(recipe.config["output_dir"]))
    if found is None:
        if dataset_name or model_id:
            raise UserError(f"{recipe.name} is made for its own model and data; take another recipe as the pattern")
        return _Names(recipe.name.rpartition("_")[0], "", recipe.dataset, "", recipe.name.rpartition("_")[2], True)
    if dataset_name is not None:
        dataset(dataset_name)
    model = found["model"]
    if model_id:
        model = model_slug(model_id) + ("_lora" if recipe.config.get("adapter") else "")
    name = dataset_name or found["dataset"]
    title = (model_id or recipe.model).rstrip("/").rpartition("/")[2]
    return _Names(model, title, name, TITLES[name], found["stage"], False)


def _file_name(recipe: ShippedRecipe, names: _Names) -> str:
    if names.fixed:
        return recipe.path.name
    middle = "" if names.dataset == "gsm8k" else f"_{names.dataset}"
    return f"{names.model}{middle}_{names.stage}.yml"


def _before_name(
    named: str | None, file_name: str | None, recipe: ShippedRecipe, before: ShippedRecipe, names: _Names
) -> str:
    """What the stage before is called: as the user says, like the user's own file, or by the rule for all."""
    if named:
        return named
    if file_name is None:
        stage = before.name.removeprefix(recipe.name.removesuffix(names.stage))
        return _file_name(before, _Names(names.model, "", names.dataset, "", stage, names.fixed))
    stem, dot, suffix = file_name.rpartition(".")
    own, other = names.stage, before.name.removeprefix(recipe.name.removesuffix(names.stage))
    stem = stem.removesuffix(own) + other if stem.endswith(own) else f"{stem}_{other}"
    return f"{stem}{dot}{suffix}"


def _parse_override(text: str) -> tuple[str, Any]:
    key, equals, value = text.partition("=")
    if not equals or not re.fullmatch(r"[A-Za-z_][\w.]*", key):
        raise UserError(f"{text!r} is not of the form key=value, such as num_epochs=1 or datasets.0.split=train[:100]")
    try:
        return key, YAML(typ="safe", pure=True).load(value) if value else None
    except Exception as error:
        raise UserError(f"{key}: {value!r} is not a YAML value: {str(error).splitlines()[0]}") from error


def _move(document: Any, recipe: ShippedRecipe, names: _Names, output_root: str | None) -> None:
    if names.fixed:
        if output_root:
            raise UserError(f"{recipe.name} has fixed places; set output_dir= instead of --output-root")
        return
    root = output_root.rstrip("/") or "/" if output_root else "outputs"
    document["output_dir"] = f"{root}/{names.model}/{names.dataset}/{names.stage}"
    document["dataset_prepared_path"] = f"{root}/prepared"


def _change_dataset(document: Any, new: ReasoningDataset, old: str) -> list[str]:
    entry = document["datasets"][0]
    for key, value in (
        ("path", new.path),
        ("name", new.config),
        ("split", new.train_split),
        ("revision", new.revision),
    ):
        if value is not None:
            entry[key] = value
        else:
            entry.pop(key, None)
    entry.move_to_end("type")
    entry["type"] = f"sftkey.datasets.{new.name}"
    if new.name == old:
        return []
    length, was = SEQUENCE_LENGTHS[new.name], int(document["sequence_len"])
    document["sequence_len"] = length
    micro = max(1, int(document["micro_batch_size"]) * was // length)
    document["micro_batch_size"] = micro
    document["gradient_accumulation_steps"] = SEQUENCES_PER_DEVICE // micro
    notes = []
    if new.name in ("openr1_math", "cot_collection"):
        notes.append(
            f"{TITLES[new.name]} has no test split: the rows that {'sftkey_' + new.name} evaluates are left out of training"
        )
    if new.name == "cot_collection":
        notes.append(
            "CoT-Collection has 1.8 million rows: num_epochs=1, or a part such as datasets.0.split=train[:100000]"
        )
    return notes


def _override(document: Any, path: str, value: Any, known_keys: Callable[[], set[str]] | None) -> None:
    keys = path.split(".")
    if keys[0] not in document and known_keys is not None:
        known = known_keys()
        if keys[0] not in known:
            nearest = difflib.get_close_matches(keys[0], known, n=1, cutoff=0.0)
            raise UserError(f"{keys[0]}: no key of Axolotl or of this plugin; did you mean {nearest[0]!r}?")
    place = document
    for done, key in enumerate(keys[:-1]):
        place = _step(place, key, ".".join(keys[: done + 1]), document)
    last: Any = keys[-1]
    if isinstance(place, list):
        _step(place, last, path, document)
        last = int(last)
    elif not isinstance(place, dict):
        raise UserError(f"{path}: {'.'.join(keys[:-1])} is {place!r}, which has no keys")
    new = _quoted(value)
    if isinstance(place, CommentedMap):
        _keep_comment_after(place, last, new)
    else:
        place[last] = new


def _step(place: Any, key: str, path: str, document: Any) -> Any:
    if isinstance(place, list):
        if not key.isdigit() or int(key) >= len(place):
            raise UserError(f"{path}: the list has the entries 0 to {len(place) - 1}")
        return place[int(key)]
    if isinstance(place, dict):
        if key not in place:
            place[key] = CommentedMap()
        return place[key]
    raise UserError(f"{path}: {place!r} has no keys")


def _keep_comment_after(document: CommentedMap, key: str, value: Any) -> None:
    """Set a key without losing the empty line or comment that follows it.

    What follows a nested value is kept with the value's last line: it has to move to where the new value ends.
    """
    following = _take_following(document, key)
    document[key] = value
    if following is not None:
        _put_following(document, key, following)


def _take_following(document: CommentedMap, key: Any) -> Any:
    if key not in document:
        return None
    own = document.ca.items.get(key)
    if own is not None and len(own) > 2 and own[2] is not None:
        token, own[2] = own[2], None
        return token
    value = document[key]
    if isinstance(value, CommentedMap) and value:
        return _take_following(value, list(value)[-1])
    if isinstance(value, list) and value and hasattr(value, "ca"):
        items = value.ca.items.get(len(value) - 1)
        if items is not None and items[0] is not None:
            token, items[0] = items[0], None
            return token
        last = value[-1]
        return _take_following(last, list(last)[-1]) if isinstance(last, CommentedMap) and last else None
    return None


def _put_following(document: CommentedMap, key: Any, token: Any) -> None:
    value = document[key]
    if isinstance(value, CommentedMap) and value and not value.fa.flow_style():
        _put_following(value, list(value)[-1], token)
    else:
        document.ca.items[key] = [None, None, token, None]


def _commented(value: Any) -> Any:
    if isinstance(value, Mapping):
        return CommentedMap({key: _commented(item) for key, item in value.items()})
    return _quoted(value)


def _quoted(value: Any) -> Any:
    """A value whose strings stay strings for a YAML 1.1 reader such as Axolotl's: ``no`` and ``1e5`` are quoted."""
    if isinstance(value, Mapping):
        return {key: _quoted(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_quoted(item) for item in value]
    if isinstance(value, str):
        try:
            plain = yaml.safe_load(value) == value
        except yaml.YAMLError:
            plain = True  # ruamel quotes what isn't a plain scalar
        return value if plain else DoubleQuotedScalarString(value)
    return value


@dataclass(frozen=True)
class _Memory:
    """What a written recipe needs on each GPU that it is written for, as far as that is known.

    Attributes:
        note: For the user; ``None`` for a recipe that is written for no GPU.
        fits: Whether it is known to fit.
        too_large: The peak in GiB where that is more than the GPU has; the recipe's own comments say otherwise then.
    """

    note: str | None = None
    fits: bool = False
    too_large: float | None = None


def _memory(recipe: ShippedRecipe, document: Any, model_id: str | None) -> _Memory:
    shape = _architecture(model_id) if model_id else recipe.architecture
    if recipe.gpus is None or recipe.gpu_gigabytes is None:
        return _Memory()
    if shape is None:
        return _Memory(f"memory: the shape of {model_id} isn't known here, so nothing says whether it fits")
    try:
        peak = _peak(recipe, document, shape)
    except (KeyError, TypeError, ValueError) as error:
        return _Memory(f"memory: no estimate ({error})")
    place = f"each of {recipe.gpus} GPUs" if recipe.gpus > 1 else "one GPU"
    note = f"memory: at most about {peak:.0f} GiB on {place} (an estimate)"
    has = recipe.gpu_gigabytes * 10**9 / GIB
    if peak <= has:
        return _Memory(note, fits=True)
    means = ["lower micro_batch_size"] if int(document.get("micro_batch_size") or 1) > 1 else []
    means.append("lower sequence_len")
    if document.get("adapter") and not document.get("load_in_4bit"):
        four_bits = _peak(recipe, {**document, "adapter": "qlora", "load_in_4bit": True}, shape)
        if four_bits <= has:
            means.append(f"set adapter=qlora load_in_4bit=true (about {four_bits:.0f} GiB)")
    return _Memory(f"{note}: more than {recipe.gpu_gigabytes} GB; {', or '.join(means)}", too_large=peak)


def _peak(recipe: ShippedRecipe, document: Any, shape: Architecture) -> float:
    settings = deepspeed_settings(_plain(document.get("deepspeed")), recipe.path.parent)
    stage = int(settings["zero_optimization"]["stage"]) if settings else 0
    return estimate_memory(shape, _plain(document), gpus=recipe.gpus or 1, zero_stage=stage).peak / GIB


def _architecture(model_id: str) -> Architecture | None:
    if model_id in ARCHITECTURES:
        return ARCHITECTURES[model_id]
    path = Path(model_id) / "config.json"
    if not path.is_file():
        return None
    try:
        return Architecture.from_config(json.loads(path.read_text(encoding="utf-8")))
    except (ValueError, KeyError, TypeError):
        return None


def _header(
    recipe: ShippedRecipe,
    names: _Names,
    file_name: str,
    command: str,
    before: WrittenRecipe | None,
    too_large: float | None,
) -> str:
    """The comment at the top, true for the recipe as written."""
    lines = recipe.text.split("base_model:", 1)[0].splitlines()
    what = [line for line in lines if not re.match(r"# (Run with|Hardware|      or): ", line) and line.startswith("#")]
    rest = [line for line in lines if line.startswith("# Hardware: ")]
    if too_large is not None:
        rest.append(f"# Memory: about {too_large:.0f} GiB per GPU by the estimate, more than these have.")
    text = "\n".join(what)
    if not names.fixed:
        old = recipe.model.rpartition("/")[2]
        text = text.replace(f"{old} on {TITLES[recipe.dataset]},", f"{names.model_title} on {names.dataset_title},", 1)
    after = f" (after {before.file_name})" if before else ""
    return "\n".join(
        [
            text,
            f"# Run with: axolotl train {file_name}{after}",
            *rest,
            f"# Written with sftkey {__version__}: {command}",
            "",
        ]
    )


def _body(document: Any) -> str:
    """The YAML below the comment at the top."""
    stream = io.StringIO()
    document.ca.comment = None
    _yaml().dump(document, stream)
    return stream.getvalue()


class _Representer(RoundTripRepresenter):
    """Floats that YAML 1.1 readers take for floats: ``1.0e-05``, not ``1e-05``."""

    def represent_float(self, data: float) -> Any:
        text = repr(data)
        if "e" in text and "." not in text:
            text = text.replace("e", ".0e", 1)
        return self.represent_scalar("tag:yaml.org,2002:float", text)


_Representer.add_representer(float, _Representer.represent_float)


def _yaml() -> YAML:
    handler = YAML()
    handler.Representer = _Representer
    handler.preserve_quotes = True
    handler.width = 4096
    handler.indent(mapping=2, sequence=4, offset=2)
    return handler


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_plain(item) for item in value]
    if isinstance(value, bool) or value is None:
        return value
    for kind in (int, float, str):
        if isinstance(value, kind):
            return kind(value)
    return value


DATASET_NAMES = tuple(DATASETS)
"""What ``--dataset`` takes."""
