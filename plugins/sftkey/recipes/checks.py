"""Checks of a raw recipe. Each error names the key, what was found and what to change."""

from __future__ import annotations

import math
from collections.abc import Mapping
from importlib.util import find_spec

from packaging.specifiers import InvalidSpecifier, SpecifierSet

from sftkey.datasets.entry_files import refuse_missing
from sftkey.datasets.entry_shapes import check_entry_shapes, check_shapes
from sftkey.datasets.registry import DATASETS, OWN_DATA, TYPES, find_dataset
from sftkey.format.formats import THINKING_ANSWER
from sftkey.format.methods import METHODS
from sftkey.format.segments import SEGMENT_GROUPS
from sftkey.format.templates import END_OF_TURN, PLAIN, START_OF_TURN, TAGGED, TEMPLATES
from sftkey.recipes.context_grad import check_context_grad
from sftkey.recipes.entry_keys import check_entry
from sftkey.recipes.keys import KEYS, AxolotlKeys, SpecialTokens
from sftkey.recipes.load import (
    OWN_TEMPLATES,
    TOKENIZER_DEFAULT,
    Recipe,
    adds_tag_tokens,
    data_entries,
    has_own_template,
    is_prepared,
    response_format,
    template_name,
    warmup_ratio,
)
from sftkey.recipes.objective import check_objective
from sftkey.recipes.sharding import check_sharding
from sftkey.recipes.turns import check_turns
from sftkey.util.errors import UserError, nearest
from sftkey.util.origin import upgrade_command
from sftkey.util.version import __version__


def check_recipe(cfg: Recipe, *, run_code: bool = True) -> None:
    """Check a raw recipe, before Axolotl validates it.

    Args:
        cfg: The recipe as parsed from YAML, command-line overrides included.
        run_code: Import the module that a ``type:`` names; without it the module of another package is only looked for.

    Raises:
        UserError: The first thing that is wrong.
    """
    _requires(cfg)  # first: a newer version's keys are unknown here
    _keys(cfg)
    _shapes(cfg)
    _method(cfg)
    _template(cfg)
    _datasets(cfg, run_code)
    _own_data(cfg)
    check_turns(cfg)
    _excluded(cfg)
    _warmup(cfg)
    _tags(cfg)
    _segment_weights(cfg)
    check_objective(cfg)
    check_context_grad(cfg)
    check_sharding(cfg)


def _requires(cfg: Recipe) -> None:
    wanted = cfg.get("sftkey_requires")
    if wanted is None:
        return
    try:
        fits = SpecifierSet(str(wanted)).contains(__version__, prereleases=True)
    except InvalidSpecifier as error:
        raise UserError(f'sftkey_requires: {wanted!r} is not a version specifier; write one such as ">=0.2"') from error
    if not fits:
        raise UserError(
            f"sftkey_requires: this recipe needs sftkey {wanted}, and {__version__} is installed; "
            f"{upgrade_command(str(wanted))}"
        )


def _shapes(cfg: Recipe) -> None:
    check_shapes(AxolotlKeys, cfg)
    for place, entry in data_entries(cfg):
        check_entry_shapes(entry, place)
    check_shapes(SpecialTokens, cfg.get("special_tokens") or {}, "special_tokens: ")


def _keys(cfg: Recipe) -> None:
    for key in cfg:
        if str(key).startswith("sftkey") and key not in KEYS:
            raise UserError(f"unknown key {key!r}; did you mean {nearest(key, KEYS)!r}?")


def _method(cfg: Recipe) -> None:
    method = cfg.get("sftkey_method")
    if method is None:
        raise UserError(f"sftkey_method is missing; set it to one of {', '.join(METHODS)}")
    if method not in METHODS:
        meant = nearest(method, METHODS)
        raise UserError(f"sftkey_method: {method!r} is not one of {', '.join(METHODS)}; did you mean {meant!r}?")


def _template(cfg: Recipe) -> None:
    name, method = template_name(cfg), METHODS[cfg["sftkey_method"]]
    needed = TAGGED if method.tagged else PLAIN
    if name in OWN_TEMPLATES:
        if name == "jinja" and not cfg.get("chat_template_jinja"):
            raise UserError("chat_template: jinja needs the template's text under chat_template_jinja; add it")
        return
    if name not in TEMPLATES:
        raise UserError(
            f"chat_template: {name!r} has no exact segments; set chat_template: {needed}, or {TOKENIZER_DEFAULT} for the "
            "template that the tokenizer brings"
        )
    own = response_format(cfg)
    if own is not THINKING_ANSWER:
        raise UserError(
            f"chat_template: {name} writes the paper's tags, and sftkey_format: {own.name} others; remove chat_template, so "
            "that the model's own is used"
        )
    if name != needed:
        kind = "tagged" if method.tagged else "untagged"
        raise UserError(f"chat_template: {name} does not fit the {kind} method {method.name}; set it to {needed}")
    if name == PLAIN and cfg.get("default_system_message"):
        raise UserError(f"default_system_message: the chat template {PLAIN} has no system message; remove the key")
    for marker in (START_OF_TURN, END_OF_TURN):
        if marker in (cfg.get("default_system_message") or ""):
            raise UserError(f"default_system_message: holds {marker}, which would end its turn early; remove it there")


def _datasets(cfg: Recipe, run_code: bool) -> None:
    if not cfg.get("datasets"):
        raise UserError("datasets: is empty; add an entry such as {path: openai/gsm8k, type: sftkey.datasets.gsm8k}")
    # A recipe that was already prepared, as a Ray worker gets it, has our keys where Axolotl leaves them.
    prepared = is_prepared(cfg)
    for place, entry in data_entries(cfg):
        _dataset_type(place, str(entry.get("type")), run_code)
        if not prepared:
            check_entry(place, entry)
        refuse_missing(entry, place)


def _own_data(cfg: Recipe) -> None:
    types = {str(entry.get("type")).removeprefix(TYPES) for _, entry in data_entries(cfg)}
    for key in ("sftkey_answers", "sftkey_held_out"):
        if cfg.get(key) is not None and types <= set(DATASETS):
            raise UserError(
                f"{key}: {cfg[key]} is for rows of your own, and the data sets here are published; remove it"
            )
    if cfg.get("sftkey_held_out") is not None and cfg.get("test_datasets"):
        raise UserError("sftkey_held_out and test_datasets both say which rows are evaluated; keep one")


def _dataset_type(place: str, kind: str, run_code: bool) -> None:
    known = (*DATASETS, *OWN_DATA)
    if "." not in kind:
        raise UserError(
            f"{place}: type {kind!r} carries no segments; with this plugin every data set has a type {TYPES}<name> (your own "
            f"rows: {TYPES}columns or {TYPES}messages) or is a module of yours, such as my_lab.svamp, with a ReasoningDataset"
        )
    if kind.startswith(TYPES) and kind.removeprefix(TYPES) not in known:
        meant = nearest(kind.removeprefix(TYPES), known)
        raise UserError(
            f"{place}: type {kind!r}: there is no such module; did you mean {TYPES}{meant}? "
            f"This version ({__version__}) knows {', '.join(known)}"
        )
    if not run_code and not kind.startswith(TYPES):
        package = kind.partition(".")[0]
        # Of a package without a dot: finding what is inside one would import it.
        if not package.isidentifier() or find_spec(package) is None:
            raise UserError(
                f"{place}: type {kind!r}: there is no package {package!r} here; install it, or correct the type"
            )
        return
    try:
        find_dataset(kind)
    except UserError as error:
        raise UserError(f"{place}: type {error}") from error


def _excluded(cfg: Recipe) -> None:
    if cfg.get("train_on_inputs"):
        raise UserError(
            f"train_on_inputs: true and sftkey_method: {cfg['sftkey_method']} exclude each other (the prompt never enters "
            "the loss); remove train_on_inputs"
        )
    if str(cfg.get("excess_length_strategy") or "").lower() == "truncate":
        raise UserError(
            "excess_length_strategy: truncate would cut the answer off; use drop (the default, counted) or raise"
        )
    for key, why in (
        ("streaming", "skipped rows could not be counted before training"),
        ("pretraining_dataset", "there is no prompt and response"),
        ("rl", "this is supervised fine-tuning"),
        ("reward_model", "this is supervised fine-tuning"),
        ("skip_prepare_dataset", "the labels are made in preparation"),
        ("eot_tokens", "the end of the turn is the chat template's"),
        ("chunked_cross_entropy", "the segment loss has its own: sftkey_sparse_logits"),
        ("use_dft", "it is another loss, which would be ignored; here it is `sftkey_objective: dft`"),
        ("use_eaft", "it is another loss, which would be ignored; here it is `sftkey_objective: eaft`"),
        ("label_smoothing_factor", "it is another loss, which would be ignored"),
        ("trainer_cls", "the plugin's own trainer would take its place"),
    ):
        if cfg.get(key):
            raise UserError(f"{key}: does not go with sftkey_method ({why}); remove it")
    # Axolotl copies the second, its old name, to the first.
    for key in ("context_parallel_size", "sequence_parallel_degree"):
        if float(cfg.get(key) or 1) > 1:
            raise UserError(f"{key}: > 1 splits sequences, which the segment loss can't follow; remove it")


def _warmup(cfg: Recipe) -> None:
    if cfg.get("sftkey_warmup_epochs") is None:
        return
    if float(cfg["sftkey_warmup_epochs"]) < 0:
        raise UserError(f"sftkey_warmup_epochs: {cfg['sftkey_warmup_epochs']} is less than 0")
    for key in ("warmup_steps", "warmup_ratio"):
        if cfg.get(key) is not None and not (key == "warmup_ratio" and cfg[key] == warmup_ratio(cfg)):
            raise UserError(f"sftkey_warmup_epochs and {key} are both set; keep one")
    if float(cfg["sftkey_warmup_epochs"]) > float(cfg.get("num_epochs") or 1):
        raise UserError(
            f"sftkey_warmup_epochs: {cfg['sftkey_warmup_epochs']} is longer than num_epochs: {cfg.get('num_epochs') or 1}"
        )


def _tags(cfg: Recipe) -> None:
    tags = response_format(cfg).tags
    listed = [tag for tag in tags if tag in (cfg.get("tokens") or [])]
    if listed and len(listed) < len(tags):
        missing = ", ".join(tag for tag in tags if tag not in listed)
        how_many = {2: "both", 3: "all three", 4: "all four"}[len(tags)]
        raise UserError(f"tokens: lists {', '.join(listed)} but not {missing}; list {how_many} or none")
    if listed and cfg.get("sftkey_tags") == "text":
        raise UserError("sftkey_tags: text, but the tags are listed under tokens:; remove one of the two")
    special = cfg.get("special_tokens") or {}
    if any(tag in (special.get("additional_special_tokens") or []) for tag in tags):
        raise UserError(
            "special_tokens: additional_special_tokens: the tags must not be special tokens (lm-eval and vLLM drop those "
            "from the output); use sftkey_tags: tokens"
        )
    if special.get("eos_token") not in (None, END_OF_TURN) and not has_own_template(cfg):
        raise UserError(
            f"special_tokens: eos_token: {special['eos_token']!r}, but a trained checkpoint stops at the end of the turn, "
            f"{END_OF_TURN}; remove it"
        )
    # A stage that starts from another got its embeddings trained there; single ones are looked at once there is a model.
    if cfg.get("adapter") and adds_tag_tokens(cfg) and not cfg.get("sftkey_after"):
        trained = set(cfg.get("lora_modules_to_save") or [])
        missing_modules = [name for name in ("embed_tokens", "lm_head") if name not in trained]
        if cfg.get("peft_trainable_token_indices"):
            if len(missing_modules) < 2 and not is_prepared(cfg):
                raise UserError(
                    "peft_trainable_token_indices trains single embeddings, and lora_modules_to_save all of them; remove "
                    "one of the two"
                )
        elif missing_modules:
            raise UserError(
                f"adapter: {cfg['adapter']} with added tag tokens, but {' and '.join(missing_modules)} would stay frozen: "
                "the new embeddings would never be trained. Add `lora_modules_to_save: [embed_tokens, lm_head]` or use "
                "sftkey_tags: text"
            )


def _segment_weights(cfg: Recipe) -> None:
    for key in ("sftkey_segment_weights", "sftkey_segment_schedule"):
        weights = cfg.get(key)
        if weights is None:
            continue
        if not isinstance(weights, Mapping) or not weights or set(weights) - set(SEGMENT_GROUPS):
            raise UserError(f"{key}: {weights!r}; it maps thinking, format and answer to weights")
        # True is no number here, and .nan is not at least 0.
        if not all(type(weight) in (int, float) and 0 <= weight < math.inf for weight in weights.values()):
            raise UserError(f"{key}: {dict(weights)!r}; weights are finite numbers >= 0")
        trained = METHODS[cfg["sftkey_method"]].trained
        # A name that is left out keeps what the method gives it.
        if not any(weights.get(name, bool(group & trained)) for name, group in SEGMENT_GROUPS.items()):
            raise UserError(f"{key}: {dict(weights)!r} leaves nothing to train with the method {cfg['sftkey_method']}")
