"""Set up the trainer that Axolotl built: the segment loss, the end of generation, the warmup."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from axolotl.utils.logging import get_logger

from sftkey.axolotl.added_tags import refuse_frozen_tags
from sftkey.format.methods import METHODS
from sftkey.recipes.load import response_format
from sftkey.training.end_of_turn import stop_at_end_of_turn
from sftkey.training.recipe_loss import loss_options
from sftkey.training.selection import greater_is_better
from sftkey.training.served_tokenizer import describe_responses
from sftkey.training.trainer import SegmentLossTrainer
from sftkey.util.errors import UserError

LOG = get_logger(__name__)


def set_up_trainer(cfg: Any, trainer: Any, *, adds_tags: bool) -> None:
    """Set up the trainer before its first step.

    Args:
        cfg: The validated recipe.
        trainer: The trainer.
        adds_tags: Whether the stage adds the tags to the vocabulary.

    Raises:
        UserError: Several processes were started that don't train together, the trainer is another plugin's, or the
            embeddings of added tag tokens are frozen.
    """
    world_size = int(os.environ.get("WORLD_SIZE", 1))
    if trainer.args.world_size != world_size:
        raise UserError(
            f"{world_size} processes were started, but the trainer sees {trainer.args.world_size}: each would train a "
            "model of its own into the same output_dir. Check the launcher's options (on CPUs use --launcher torchrun)"
        )
    if not isinstance(trainer, SegmentLossTrainer):
        raise UserError(
            f"plugins: the trainer is another plugin's ({type(trainer).__module__}.{type(trainer).__name__}), which "
            "doesn't compute the segment loss; remove that plugin, or list sftkey.SFTKeyPlugin before it"
        )

    metric, better = str(cfg.metric_for_best_model or ""), greater_is_better(str(cfg.metric_for_best_model or ""))
    if cfg.greater_is_better is not None:
        if better not in (None, cfg.greater_is_better):
            raise UserError(
                f"greater_is_better: {str(cfg.greater_is_better).lower()}, but {metric} is better when it is "
                f"{'higher' if better else 'lower'}; remove the key"
            )
        # Axolotl drops a false.
        trainer.args.greater_is_better = cfg.greater_is_better
    trainer.configure_segment_loss(**loss_options(cfg))
    if cfg.sftkey_context_grad is False and int(os.environ.get("RANK", 0)) == 0:
        LOG.warning(
            "sftkey_context_grad: false: the gradient leaves out what the context's keys and values owe to the weights"
            + ("; gradient checkpointing is off in training steps" if cfg.gradient_checkpointing else "")
        )
    if cfg.trackio_project_name:
        # Axolotl puts it into an environment variable that transformers doesn't read.
        trainer.args.project = cfg.trackio_project_name
    if adds_tags:
        refuse_frozen_tags(trainer.accelerator.unwrap_model(trainer.model), trainer.processing_class, cfg)
    stop_at_end_of_turn(trainer)
    if METHODS[cfg.sftkey_method].tagged:
        describe_responses(trainer.processing_class, response_format(cfg))
    if cfg.sftkey_warmup_epochs is not None:
        # Axolotl makes steps of warmup_ratio by cutting off, turns 1 step into 2, and takes max_steps for all epochs.
        trainer.args.warmup_steps = _warmup_steps(cfg, trainer)


def tokenizer_size(output_dir: Path) -> int | None:
    """The number of tokens of a saved tokenizer, added ones included; ``None`` where there is none."""
    from transformers import AutoTokenizer

    return len(AutoTokenizer.from_pretrained(str(output_dir))) if (output_dir / "tokenizer.json").is_file() else None


def _warmup_steps(cfg: Any, trainer: Any) -> int:
    """The optimizer steps in ``sftkey_warmup_epochs`` epochs, by Axolotl's own count of steps."""
    if not cfg.max_steps:
        return round(cfg.sftkey_warmup_epochs * trainer.args.max_steps / (cfg.num_epochs or 1))
    from axolotl.utils.dict import DictDefault
    from axolotl.utils.trainer import calculate_total_num_steps

    counted = DictDefault({**cfg, "sample_packing_eff_est": None, "max_steps": None})
    steps = calculate_total_num_steps(counted, trainer.train_dataset, update=False)
    warmup = round(cfg.sftkey_warmup_epochs * steps / (cfg.num_epochs or 1))
    if warmup >= cfg.max_steps and int(os.environ.get("RANK", 0)) == 0:
        LOG.warning(
            "max_steps: %s ends the training within the warmup of %s steps (sftkey_warmup_epochs: %s): the learning rate "
            "gets to %.0f%% of learning_rate and no further; lower sftkey_warmup_epochs or raise max_steps",
            *(cfg.max_steps, warmup, cfg.sftkey_warmup_epochs, 100 * cfg.max_steps / warmup),
        )
    return warmup
