"""TRL's trainer with the segment loss, from the hand-over to the marker."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from accelerate.utils import broadcast_object_list
from transformers import AutoModelForCausalLM, AutoTokenizer, DataCollatorForSeq2Seq
from trl import SFTConfig, SFTTrainer

from sftkey.format.methods import METHODS
from sftkey.format.templates import END_OF_TURN
from sftkey.recipes.checks import check_recipe
from sftkey.recipes.load import adds_tag_tokens, has_own_template, response_format, template_name
from sftkey.recipes.settings import training_settings
from sftkey.stages.handover import check_agreement, start_of, start_settings
from sftkey.stages.links import split_part
from sftkey.stages.marker import MARKER_FILE, RUN_FILE
from sftkey.stages.readiness import refuse_missing_part
from sftkey.stages.stage import Stage
from sftkey.stages.training_run import TrainingRun
from sftkey.training.collator import SegmentCollator
from sftkey.training.end_of_turn import stop_at_end_of_turn
from sftkey.training.recipe_loss import loss_options
from sftkey.training.recipe_rows import set_up_tokenizer
from sftkey.training.saving import CheckpointSaving
from sftkey.training.served_tokenizer import describe_responses
from sftkey.training.trainer import SegmentLossTrainer
from sftkey.trl.data import prepare_rows
from sftkey.trl.recipe import recipe_name, recipe_of, refused
from sftkey.util.errors import UserError
from sftkey.util.extras import extra

LOG = logging.getLogger(__name__)


class SFTKeyTrainer(CheckpointSaving, SFTTrainer, SegmentLossTrainer):
    """`trl.SFTTrainer` that trains one stage, and leaves the same marker as Axolotl with `sftkey.SFTKeyPlugin`.

    Where `model` is the output directory of a finished stage, this one starts from it, once the two agree on method, tags,
    template, tokenizer and data. An interrupted training goes on from its last whole checkpoint, a finished one is left
    alone. `train` saves the weights and the tokenizer into ``args.output_dir``.

    Args:
        model: A model on the Hub or in a folder, or the output directory of the stage before.
        args: How to train. Its arguments that ask for another loss, or for packed rows, are refused.
        recipe: ``sftkey_method``, ``datasets``, ``test_datasets`` and every other key of this package, as in a recipe.
        peft_config: For a new adapter. One that the stage before trained is trained on without it.
        **kwargs: For `trl.SFTTrainer`, such as ``callbacks``.

    Raises:
        UserError: Something has to be changed: in the recipe, the arguments, the stage before or ``output_dir``.
    """

    def __init__(
        self,
        model: str,
        args: SFTConfig,
        recipe: Mapping[str, Any],
        *,
        peft_config: Any = None,
        **kwargs: Any,
    ) -> None:
        if (reason := refused(args)) is not None:
            raise UserError(f"SFTConfig: {reason}; remove it")
        for name in ("train_dataset", "eval_dataset", "processing_class", "data_collator", "formatting_func"):
            if name in kwargs:
                raise UserError(f"{name}: the recipe's datasets say what is trained; remove it")
        self._recipe = recipe_of(model, args, recipe, peft_config)
        check_recipe(self._recipe)
        if has_own_template(self._recipe):
            raise UserError("sftkey_format, chat_template: only Axolotl reads the model's own chat template; remove it")
        cfg = dict(self._recipe)
        before = _start_from(model, cfg, new_adapter=peft_config is not None)
        self._recipe |= {"adapter": cfg["adapter"]} if cfg.get("adapter") else {}
        self._run = TrainingRun(
            cfg,
            self._recipe,
            training_settings(cfg),
            before,
            processes=args.world_size,
            main=args.process_index == 0,
            say=LOG.warning if args.process_index == 0 else LOG.debug,
            front_end="trl",
        )
        try:
            self._run.begin()
            self._set_up(cfg, args, peft_config, kwargs, before)
        except BaseException:
            self._run.end()
            raise

    def _set_up(
        self, cfg: dict[str, Any], args: SFTConfig, peft_config: Any, kwargs: Any, before: Stage | None
    ) -> None:
        tokenizer = AutoTokenizer.from_pretrained(str(cfg.get("tokenizer_config") or cfg["base_model"]))
        tags = adds_tag_tokens(cfg)
        set_up_tokenizer(tokenizer, template_name(cfg), cfg.get("default_system_message"), tags_as_tokens=tags)
        with args.main_process_first(desc="preparing the rows"):
            train, evaluation = prepare_rows(cfg, tokenizer), prepare_rows(cfg, tokenizer, evaluation=True)
        assert train is not None
        self._counts = train.counts
        if not self._run.finished:
            self._run.data_is_prepared(train.counts)
        model = _load_model(cfg, args, tokenizer)
        # The loss is `SegmentLossTrainer`'s; TRL's own would replace the output layer's forward for its chunks.
        args.loss_type, args.dataset_kwargs, args.model_init_kwargs = "nll", {"skip_prepare_dataset": True}, None
        super().__init__(
            model=model,
            args=args,
            train_dataset=train.rows,
            eval_dataset=evaluation.rows if evaluation else None,
            processing_class=tokenizer,
            data_collator=SegmentCollator(DataCollatorForSeq2Seq(tokenizer)),
            peft_config=peft_config,
            **kwargs,
        )
        self.configure_segment_loss(**loss_options(cfg))
        stop_at_end_of_turn(self)
        if METHODS[cfg["sftkey_method"]].tagged:
            describe_responses(tokenizer, response_format(cfg))
        if (epochs := cfg.get("sftkey_warmup_epochs")) is not None:
            batches = len(self.get_train_dataloader())
            self.args.warmup_steps = round(float(epochs) * math.ceil(batches / args.gradient_accumulation_steps))

    # TRL's versions read logits of every position, which aren't computed here, or know no segments.
    compute_loss = SegmentLossTrainer.compute_loss
    prediction_step = SegmentLossTrainer.prediction_step
    _set_signature_columns_if_needed = SegmentLossTrainer._set_signature_columns_if_needed

    def create_model_card(self, *args: Any, **kwargs: Any) -> None:
        """Nothing: the card is written with the marker, and says what was trained on and how."""

    def train(self, resume_from_checkpoint: str | bool | None = None, *args: Any, **kwargs: Any) -> Any:
        """Train the stage to its marker.

        Args:
            resume_from_checkpoint: Leave it out: an interrupted training goes on by itself, and ``SFTConfig`` can name a
                checkpoint.
            *args: As for `transformers.Trainer.train`.
            **kwargs: The same.

        Returns:
            As `transformers.Trainer.train`; ``None`` where the stage is finished.

        Raises:
            UserError: A checkpoint was named here.
        """
        if resume_from_checkpoint not in (None, True):
            raise UserError(
                f"resume_from_checkpoint: {resume_from_checkpoint!r}: name a checkpoint in SFTConfig, where it is checked; "
                "an interrupted training goes on by itself"
            )
        if self._run.finished:
            self._run.end()
            return None
        try:
            self._run.trainer_is_made(
                self, getattr(self.accelerator.unwrap_model(self.model).config, "_commit_hash", None)
            )
            start = [self._run.resume_from]
            if self.args.world_size > 1:
                broadcast_object_list(start)
            result = super().train(start[0], *args, **kwargs)
            self.save_model(self.args.output_dir)
            self._run.training_ended(self)
            self.accelerator.wait_for_everyone()
            if self._run.trained:
                self._run.complete(
                    recipe_name(self._recipe),
                    self._counts,
                    end_of_turn=END_OF_TURN,
                    tokenizer_size=len(self._tokenizer),
                )
        finally:
            self._run.end()
        return result


def _start_from(model: str, cfg: dict[str, Any], *, new_adapter: bool) -> Stage | None:
    """The stage whose output a model is, once it finished and agrees with the recipe, which then starts from it."""
    folder, part = split_part(model)
    if not any((Path(folder) / name).is_file() for name in (MARKER_FILE, RUN_FILE)):
        folder, part = model, ""
    found = Stage.read(folder)
    before = replace(found, config={**found.config, "output_dir": folder}, part=part)
    if not before.finished:
        if before.run is None:
            return None
        raise UserError(f"{folder} has not finished: it holds no {MARKER_FILE}. Train that stage to its end first")
    check_agreement(cfg, before)
    refuse_missing_part(before, adapter=new_adapter or before.is_adapter)
    cfg.update(start_settings({**cfg, "base_model": None}, before))
    if cfg.get("lora_model_dir"):
        if new_adapter:
            raise UserError(f"peft_config: the adapter in {model} is trained on as it is; remove peft_config")
        cfg["adapter"] = "lora"
    return before


def _load_model(cfg: Mapping[str, Any], args: SFTConfig, tokenizer: Any) -> Any:
    """The model in 32 bits, as updates of 16-bit weights round to nothing at usual rates; with room for added tags."""
    options: dict[str, Any] = {"dtype": torch.float32, **dict(args.model_init_kwargs or {})}  # type: ignore[arg-type]
    model: Any = AutoModelForCausalLM.from_pretrained(str(cfg["base_model"]), **options)
    if len(tokenizer) > model.get_input_embeddings().num_embeddings:
        if cfg.get("adapter"):
            raise UserError("sftkey_tags: tokens: an adapter leaves their new embeddings untrained here; use text")
        model.resize_token_embeddings(len(tokenizer))
    if cfg.get("lora_model_dir"):
        with extra("trl"):
            from peft import PeftModel

        model = PeftModel.from_pretrained(model, start_of(cfg), is_trainable=True)
    return model
