"""The table of recipe keys: which keys have which role, and that resuming compares the rest."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from sftkey.recipes.settings import ROLES, Role, changed_settings, has_role, keys_with, training_settings

# Axolotl's keys of the families that a line of the table stands for, the keys near to them, and two of no role.
AXOLOTL = """
auto_resume_from_checkpoints axolotl_config_path base_model base_model_config comet_api_key comet_experiment_config comet_mode
comet_online comet_project_name comet_workspace dataloader_drop_last dataloader_num_workers dataloader_pin_memory
dataloader_prefetch_factor dataset_exact_deduplication dataset_keep_in_memory dataset_num_proc dataset_prepared_path
dataset_processes dataset_shard_idx dataset_shard_num datasets ddp_timeout debug eval_batch_size eval_max_new_tokens
eval_sample_packing eval_sequence_len eval_steps eval_strategy eval_table_size evals_per_epoch evaluation_strategy
hub_model_id hub_revision hub_strategy include_tkps include_tokens_per_second logging_steps lora_alpha lora_dropout
lora_model_dir lora_target_linear lr_scheduler lr_scheduler_kwargs
mlflow_experiment_name mlflow_run_name mlflow_tracking_uri output_dir
plugins resume_from_checkpoint save_first_step save_only_model save_safetensors save_steps save_strategy save_total_limit
saves_per_epoch seed strict test_datasets tokenizer_config trackio_project_name trackio_run_name trackio_space_id use_comet
use_kernels use_liger_loss use_mlflow use_pose use_ray use_tensorboard use_trackio use_wandb wandb_entity wandb_log_model
wandb_mode wandb_name wandb_project wandb_run_id wandb_watch gradient_clipping sftkey_sparse_logits
""".split()

BEGINS: dict[Role, str] = {
    Role.NOT_TRAINING: """
        axolotl_config_path output_dir dataset_prepared_path dataset_num_proc dataset_keep_in_memory logging_steps
        dataloader_num_workers dataloader_pin_memory dataloader_prefetch_factor sftkey_accept_changes sftkey_answers
        save_ saves_per_epoch eval_ evals_per_epoch resume_from_checkpoint auto_resume_from_checkpoints wandb use_wandb
        mlflow use_mlflow comet use_comet trackio use_trackio use_tensorboard hub_ debug strict ddp_timeout include_tkps shard
        prompter""",
    Role.NOT_VARIANT: """
        output_dir base_model lora_model_dir tokenizer_config sftkey_after datasets dataset_prepared_path wandb mlflow comet
        trackio hub_ plugins logging_steps save_ eval_ strict axolotl_config sftkey_accept_changes""",
    Role.PLACE: "wandb_ mlflow_ comet_ trackio_ hub_ use_wandb use_mlflow use_comet use_trackio",
}

IS: dict[Role, str] = {
    Role.COMMAND_LINE: "debug debug_text_only debug_num_examples prompter shard",
    Role.SHOWN: """
        learning_rate lr_scheduler optimizer weight_decay num_epochs max_steps sftkey_warmup_epochs micro_batch_size
        gradient_accumulation_steps sequence_len bf16 adapter lora_r lora_alpha sftkey_tags sftkey_format
        sftkey_segment_weights
        sftkey_segment_schedule sftkey_objective sftkey_reference_model sftkey_context_grad
        seed""",
    Role.ONE_STAGE: """
        base_model output_dir sftkey_method sftkey_after sftkey_other_data chat_template hub_model_id lora_model_dir
        sftkey_accept_changes sftkey_objective sftkey_reference_model""",
    Role.LAST_STAGE: "output_dir hub_model_id sftkey_objective sftkey_reference_model",
    Role.DATA: """
        sftkey_method datasets test_datasets sftkey_columns sftkey_held_out sftkey_turns sequence_len eval_sequence_len
        excess_length_strategy
        chat_template_jinja tokens special_tokens sftkey_format sftkey_segment_weights sftkey_segment_schedule""",
    Role.PER_STAGE: """
        base_model base_model_config tokenizer_config lora_model_dir resume_from_checkpoint sftkey_accept_changes""",
}

KEYS = {*AXOLOTL, *" ".join(IS.values()).split()} | {key for key in ROLES if not key.endswith("*")}


def begins(words: str) -> Callable[[str], bool]:
    return lambda key: key.startswith(tuple(words.split()))


@pytest.mark.parametrize("role", BEGINS)
def test_roles_by_prefix(role: Role) -> None:
    assert {key for key in KEYS if has_role(key, role)} == set(filter(begins(BEGINS[role]), KEYS))


@pytest.mark.parametrize("role", IS)
def test_roles_by_name(role: Role) -> None:
    assert {key for key in KEYS if has_role(key, role)} == set(IS[role].split())


def test_every_role_is_compared() -> None:
    assert {*BEGINS, *IS} == set(Role)


def test_a_card_shows_settings_in_the_order_of_the_table() -> None:
    assert keys_with(Role.SHOWN) == tuple(IS[Role.SHOWN].split())


def test_what_is_logged_may_change_between_two_runs_and_what_is_trained_may_not() -> None:
    one = {"learning_rate": "1e-5", "wandb_project": "a", "output_dir": "x", "bf16": True, "seed": None}
    other = {"learning_rate": 1e-5, "wandb_project": "b", "output_dir": "y", "bf16": "true"}
    assert training_settings(one) == {"learning_rate": "1e-5", "bf16": True}
    assert changed_settings(one, other) == []
    assert changed_settings(one, {**other, "learning_rate": 2e-5}) == ["learning_rate: '1e-5' -> 2e-05"]
