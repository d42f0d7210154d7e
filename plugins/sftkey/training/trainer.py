"""The Hugging Face `Trainer` with the segment loss, for Axolotl and every other user of `Trainer`."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import torch
from transformers.trainer_utils import SchedulerType

from sftkey.format.segments import RESPONSE, SEGMENT_GROUPS, Segment
from sftkey.training.collator import SEGMENTS_COLUMN
from sftkey.training.context_grad import unsupported
from sftkey.training.loss import SegmentStatistics, causal_loss
from sftkey.training.other_losses import tell_of_other_losses
from sftkey.training.placement import ON_CPU, UnwaitingTrainer, splits_sequences
from sftkey.training.selection import greater_is_better
from sftkey.training.step_loss import StepLoss
from sftkey.training.targets import to_device
from sftkey.training.tokenization import IGNORE_INDEX
from sftkey.util.errors import UserError

if TYPE_CHECKING:
    from sftkey.training.objectives.base import Objective

LOG = logging.getLogger(__name__)


class SegmentLossTrainer(UnwaitingTrainer):
    """`Trainer` whose loss is the paper's (Eq. 1 or 4, normalised by tokens) and is logged per segment.

    The loss of an optimizer step is the mean over *all* labelled tokens of the step, across accumulated micro-batches
    and processes, so a micro-batch with few labelled tokens weighs no more than its tokens.

    Call `configure_segment_loss` before training; without it the labels alone decide.

    Raises:
        UserError: ``compute_loss_func`` or ``label_smoothing_factor`` asks for another loss, which would be ignored, or
            sequences are split over processes.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        for key, value in (
            ("compute_loss_func", self.compute_loss_func),
            ("label_smoothing_factor", self.args.label_smoothing_factor),
        ):
            if value:
                raise UserError(f"{key}: asks for another loss than that of the segments; remove it")
        if splits_sequences(self.accelerator):
            raise UserError(
                "parallelism_config: cp_size and sp_size split sequences, which the segment loss can't follow; remove them"
            )
        # The loss below consumes num_items_in_batch itself.
        self.model_accepts_loss_kwargs = True
        self.sparse_logits = True
        self.context_grad = True
        self._step_loss = StepLoss()
        self._sums: dict[bool, SegmentStatistics | None] = {True: None, False: None}
        self._examples_seen = 0
        self._new_examples: torch.Tensor | int = 0
        self._compared = False
        self._unlogged: dict[str, float] = {}
        self._evaluated_rows = 0
        self.eval_rows_missed: int | None = None
        better = greater_is_better(str(self.args.metric_for_best_model or ""))
        if better is not None:
            # transformers takes every name that doesn't end in "loss" for one that is better when it is higher.
            self.args.greater_is_better = better
        if self.args.lr_scheduler_type == SchedulerType.REDUCE_ON_PLATEAU:
            # It would wait for the metric to fall, whatever it is.
            given = self.args.lr_scheduler_kwargs
            mode = {"mode": "max" if self.args.greater_is_better else "min"}
            self.args.lr_scheduler_kwargs = {**mode, **(given if isinstance(given, dict) else {})}

    def configure_segment_loss(
        self,
        *,
        sparse_logits: bool = True,
        weights: torch.Tensor | None = None,
        end_weights: torch.Tensor | None = None,
        context_grad: bool = True,
        objective: Objective | None = None,
    ) -> None:
        """Choose what is computed.

        Args:
            sparse_logits: Compute the output layer at labelled positions only.
            weights: Weight of each `Segment` in the loss, shape ``(8,)``; ``None`` for the labels as they are.
            end_weights: Weights at the end of training, approached linearly; ``None`` to keep `weights`.
            context_grad: False to train without the context gradient (`sftkey.training.context_grad`); evaluation
                stays exact.
            objective: What training minimises instead of the weighted mean of the cross-entropy, which evaluation and the
                figures of each segment keep to.

        Raises:
            UserError: This model can't be trained without the context gradient.
        """
        if not context_grad:
            model: Any = self.model
            reason = unsupported(model)
            if reason is not None:
                raise UserError(f"this model can't be trained without the context gradient: {reason}")
        self.context_grad = context_grad
        self.sparse_logits = sparse_logits
        self._step_loss = StepLoss(weights, end_weights, objective)

    def _set_signature_columns_if_needed(self) -> None:
        super()._set_signature_columns_if_needed()
        if self._signature_columns is not None:
            objective = self._step_loss.objective
            needed = (SEGMENTS_COLUMN, *(objective.columns if objective else ()))
            self._signature_columns += [name for name in needed if name not in self._signature_columns]

    def segment_weights(self, device: torch.device | str = "cpu") -> torch.Tensor | None:
        """The weight of each segment at the current step, shape ``(8,)``; ``None`` for the labels as they are."""
        return self._step_loss.weights(torch.device(device), self._progress)

    @property
    def _progress(self) -> float:
        """0 at the first optimizer step, 1 at the last."""
        return self.state.global_step / max(self.state.max_steps - 1, 1)

    def _get_num_items_in_batch(self, batch_samples: list[Any], device: torch.device) -> torch.Tensor | None:
        """What the loss of an optimizer step is divided by, over micro-batches and processes.

        That is the total weight of the labelled tokens, or what the objective counts (`Objective.items`).
        """
        if not batch_samples or "labels" not in batch_samples[0]:
            return None
        total = torch.stack([self._step_loss.items(batch, self._progress) for batch in batch_samples]).sum()
        total = to_device(total, device)
        if self.args.world_size > 1:
            total = self.accelerator.gather(total.reshape(1)).sum()
        return total

    def training_step(self, model: Any, inputs: dict[str, Any], *args: Any, **kwargs: Any) -> torch.Tensor:
        """As `Trainer.training_step`; says before the first one what of the model's own loss isn't trained."""
        if not self._compared and "input_ids" in inputs:
            tell_of_other_losses(model.train(), inputs["input_ids"].to(self.args.device))
        self._compared = True
        return super().training_step(model, inputs, *args, **kwargs)

    def compute_loss(
        self,
        model: Any,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: torch.Tensor | int | None = None,
    ) -> Any:
        """The loss over labelled tokens; collects the sums per segment on the way."""
        inputs = dict(inputs)
        on_cpu = inputs.pop(ON_CPU, inputs)
        labels, segments = on_cpu["labels"], on_cpu.get(SEGMENTS_COLUMN)
        training, step_loss = bool(model.training), self._step_loss
        columns = step_loss.columns(on_cpu) if training and self.context_grad else {}
        ours = {"labels", SEGMENTS_COLUMN, *(step_loss.objective.columns if step_loss.objective else ())}
        inputs = {name: value for name, value in inputs.items() if name not in ours}
        context_grad = self.context_grad or not training
        if not context_grad and "attention_mask" in on_cpu:
            inputs["attention_mask"] = on_cpu["attention_mask"]
        if not training:
            labels, segments = self._without_repeated_rows(labels, segments)
        result = causal_loss(
            model,
            inputs,
            labels,
            segments,
            weights=self.segment_weights(labels.device),
            num_items=num_items_in_batch if training else None,
            measure=frozenset() if training or segments is None else RESPONSE,
            sparse=self.sparse_logits,
            context_grad=context_grad,
            objective=step_loss.objective if training else None,
            columns=columns,
            progress=self._progress if training else 0.0,
        )
        loss = result.loss
        if training and num_items_in_batch is not None and self.args.world_size > 1:
            # num_items_in_batch counts all processes, and the gradient is averaged over them.
            loss = loss * self.args.world_size
        self._collect(result.statistics, training)
        if not training and segments is not None:
            self._evaluated_rows += int((segments == Segment.END_OF_TURN).sum())
        if training and segments is not None:
            # Counted from the segments: a fused loss of the model gives no statistics. Not read here, in case they are on
            # the device.
            self._new_examples = self._new_examples + (segments == Segment.END_OF_TURN).sum()
        return (loss, result.outputs) if return_outputs else loss

    def _without_repeated_rows(
        self, labels: torch.Tensor, segments: torch.Tensor | None
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Labels and segments without the rows that only fill up the last round of an evaluation split.

        Accelerate repeats rows of the beginning until every process has a whole batch; `gather_for_metrics` drops them
        from `Trainer`'s own metrics, and the sums per segment must not count them either.
        """
        state = self.accelerator.gradient_state
        if self.args.world_size == 1 or not self.accelerator.even_batches:
            return labels, segments
        if not state.end_of_dataloader or state.remainder <= 0:
            return labels, segments
        rows = labels.shape[0]
        repeated = torch.arange(rows, device=labels.device) >= state.remainder - self.args.process_index * rows
        labels = labels.masked_fill(repeated[:, None], IGNORE_INDEX)
        return labels, None if segments is None else segments.masked_fill(repeated[:, None], int(Segment.PROMPT))

    def _collect(self, statistics: SegmentStatistics, training: bool) -> None:
        sums = self._sums[training]
        self._sums[training] = statistics if sums is None else sums + statistics

    def _segment_metrics(self, training: bool) -> dict[str, float]:
        """Mean loss, token count and accuracy per segment since the last call, over all processes."""
        sums = self._sums[training]
        if sums is None:
            return {}
        self._sums[training] = None
        table = torch.stack([sums.loss.float(), sums.tokens.float(), sums.correct.float()])
        examples = torch.as_tensor(self._new_examples if training else 0, device=table.device).float()
        table = torch.cat([table, examples.expand(1, len(Segment))])
        if self.args.world_size > 1:
            table = self.accelerator.reduce(table, reduction="sum")
        loss, tokens, correct, new_examples = table.cpu().tolist()
        metrics: dict[str, float] = {}
        for name, group in SEGMENT_GROUPS.items():
            count = sum(tokens[segment] for segment in group)
            if count:
                metrics[f"loss_{name}"] = sum(loss[segment] for segment in group) / count
                metrics[f"tokens_{name}"] = int(count)
        answers = tokens[Segment.ANSWER]
        if answers:
            metrics["acc_answer"] = correct[Segment.ANSWER] / answers
        if training:
            if not self._examples_seen:
                seen = [entry["examples_seen"] for entry in self.state.log_history if "examples_seen" in entry]
                self._examples_seen = int(seen[-1]) if seen else 0
            self._examples_seen += int(new_examples[0])
            self._new_examples = 0
            metrics["examples_seen"] = self._examples_seen
        return metrics

    def _maybe_log_save_evaluate(self, *args: Any, **kwargs: Any) -> None:
        # Here all processes come together, beside Trainer's own sum of their losses; not so in `log`, which a callback
        # may call in one of them alone.
        if self.control.should_log and self.state.global_step > self._globalstep_last_logged:
            self._unlogged = self._segment_metrics(training=True)
        super()._maybe_log_save_evaluate(*args, **kwargs)

    def log(self, logs: dict[str, float], *args: Any, **kwargs: Any) -> None:
        """Log, with the segment metrics beside the training loss."""
        if "loss" in logs:
            if not self._unlogged and self.args.world_size == 1:
                self._unlogged = self._segment_metrics(training=True)
            logs.update(self._unlogged)
            self._unlogged = {}
        super().log(logs, *args, **kwargs)

    def evaluation_loop(
        self,
        dataloader: Any,
        description: str,
        prediction_loss_only: bool | None = None,
        ignore_keys: list[str] | None = None,
        metric_key_prefix: str = "eval",
    ) -> Any:
        """Evaluate, with the segment metrics of the whole split among the metrics."""
        self._sums[False], self._evaluated_rows = None, 0
        output = super().evaluation_loop(dataloader, description, prediction_loss_only, ignore_keys, metric_key_prefix)
        metrics = {
            f"{metric_key_prefix}_{name}": value for name, value in self._segment_metrics(training=False).items()
        }
        self._note_missed_rows(self.num_examples(dataloader), metric_key_prefix, measured=bool(metrics))
        return output._replace(metrics={**(output.metrics or {}), **metrics})

    def _note_missed_rows(self, rows: int, split: str, *, measured: bool) -> None:
        """Say where an evaluation covered fewer rows than the split has, as packed batches that aren't full are left out."""
        seen = torch.tensor([self._evaluated_rows], device=self.args.device)
        if self.args.world_size > 1:
            seen = self.accelerator.reduce(seen, reduction="sum")
        covered = int(seen)
        self.eval_rows_missed = max(rows - covered, 0)
        if not self.eval_rows_missed or (measured and not covered):  # rows without segments aren't counted
            return
        what = f"{split}: the evaluation covered {covered} of the {rows} rows of its split"
        advice = "set eval_sample_packing: false to evaluate all"
        if not covered and self.args.metric_for_best_model:
            raise UserError(f"{what}, so there is no {self.args.metric_for_best_model} to choose by; {advice}")
        if self.is_world_process_zero():
            LOG.warning("%s; %s", what, advice)
