"""Every field of the recipe becomes something, or is refused by name."""

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest

from builtin.fireworks.recipe.recipe_configs import BASE, NAMES, make
from builtin.fireworks.recipe.recipe_fields import OTHER, SERVED, several
from distillkit.errors import InputError
from distillkit.recipes import distillation_loop as recipe
from distillkit_builtin.fireworks.recipe.config_mapping import COMPUTED, COPIED, value_of
from distillkit_builtin.fireworks.recipe.translate import translate


def gives_nothing(context: dict[str, Any]) -> dict[str, Any]:
    return {}


CHANGED: Mapping[str, Any] = {
    "log_path": "elsewhere/logs",
    "base_model": "accounts/acme/models/mine",
    "rollout_base_model": "accounts/acme/models/mine",
    "dataset": "other.jsonl",
    "teacher_model": OTHER,
    "teacher_deployment_id": "my-teacher",
    "teacher_deployment_shape": "accounts/fireworks/deploymentShapes/s",
    "teacher_replica_count": 3,
    "teacher_deployment_timeout_s": 60.0,
    "teacher_inference_url": "http://127.0.0.1:9",
    "distill_mode": "topk_forward_kl",
    "sdft_top_k": 3,
    "multi_teacher": recipe.MultiTeacherConfig([recipe.TeacherConfig(OTHER), recipe.TeacherConfig(SERVED)]),
    "learning_rate": 1e-4,
    "opd_loss_scale": 2.0,
    "ratio_log_cap": 5.0,
    "completions_per_prompt": 4,
    "max_completion_tokens": 12,
    "temperature": 0.7,
    "epochs": 3,
    "max_rows": 7,
    "max_seq_len": 4096,
    "lora_rank": 16,
    "lora_alpha": 64,
    "prompt_groups_per_step": 8,
    "grad_accumulation_normalization": "num_sequences",
    "grad_clip_norm": 1.0,
    "concurrency": recipe.ConcurrencyConfig(max_window=4),
    "init_from_checkpoint": "job:step-1",
    "warm_start_from_adapter": "gs://bucket/adapter",
    "output_model_id": "my-model",
    "save_final_checkpoint": False,
    "step_timeout": 90,
    "trainer": recipe.TrainerConfig(training_shape_id="accounts/fireworks/trainingShapes/other"),
    "deployment": recipe.DeployConfig(tokenizer_model="other"),
    "weight_sync_interval": 2,
    "weight_sync_before_training": True,
    "weight_sync_timeout": 30,
    "dcp_save_interval": 5,
    "wandb": recipe.WandBConfig(entity="me"),
    "runner": recipe.RunnerConfig("status.json"),
    "post_training_eval": gives_nothing,
    "step_eval": gives_nothing,
    "step_eval_interval": 3,
    "eval_before_training": True,
    "trainer.job_id": "my-job",
    "trainer.training_shape_id": "accounts/fireworks/trainingShapes/other",
    "trainer.reference_training_shape_id": "accounts/fireworks/trainingShapes/ref",
    "trainer.reference_job_id": "ref",
    "trainer.cleanup_reference_on_close": False,
    "trainer.custom_image_tag": "tag",
    "trainer.region": "US_TEXAS_1",
    "trainer.node_count": 2,
    "trainer.timeout_s": 10.0,
    "trainer.pending_timeout_s": 10.0,
    "trainer.extra_args": ["--x"],
    "trainer.replica_count": 2,
    "trainer.inactivity_timeout": "7200s",
    "trainer.disable_inactivity_cleanup": True,
    "trainer.purpose": "PURPOSE",
    "trainer.preemptible": True,
    "trainer.managed_by": "parent",
    "trainer.skip_validations": True,
    "trainer.use_reservation": False,
    "deployment.weight_sync_scope": recipe.WeightSyncScope.PER_DEPLOYMENT,
    "deployment.deployment_id": "my-student",
    "deployment.deployment_shape": "accounts/fireworks/deploymentShapes/s",
    "deployment.deployment_accelerator_type": "H200",
    "deployment.hot_load_bucket_type": "OTHER",
    "deployment.hot_load_trainer_job": "job",
    "deployment.enable_hot_load": False,
    "deployment.hot_load_transition_type": "SYNC",
    "deployment.deployment_timeout_s": 10.0,
    "deployment.reattach_settle_timeout_s": 10,
    "deployment.deployment_extra_args": ["--x"],
    "deployment.tokenizer_model": "other",
    "deployment.tokenizer_revision": "main",
    "deployment.sample_timeout": 10,
    "deployment.disable_speculative_decoding": True,
    "deployment.replica_count": 4,
    "deployment.extra_values": {"a": "b"},
    "deployment.preemptible": True,
    "concurrency.mode": "fixed",
    "concurrency.max_concurrency": 4,
    "concurrency.initial_window": 2,
    "concurrency.min_window": 2,
    "concurrency.max_window": 4,
    "concurrency.prefill_queue_target": 0.1,
    "concurrency.rollout_adjustment_interval": 0,
    "wandb.entity": "me",
    "wandb.project": "mine",
    "wandb.run_name": "first",
    "runner.status_file": "a",
    "runner.metadata_file": "a",
    "runner.metrics_file": "a",
    "runner.output_model_path": "a",
    "multi_teacher.teachers": [recipe.TeacherConfig(BASE, "a"), recipe.TeacherConfig(SERVED, "b")],
    "multi_teacher.route_key": "who",
    "multi_teacher.teachers[].model": OTHER,
    "multi_teacher.teachers[].route_value": "c",
    "multi_teacher.teachers[].deployment_id": "my-teacher",
    "multi_teacher.teachers[].deployment_shape": "accounts/fireworks/deploymentShapes/s",
    "multi_teacher.teachers[].teacher_messages_key": "hints",
    "multi_teacher.teachers[].tokenizer_model": "theirs",
    "multi_teacher.teachers[].blend_weight": 0.5,
}
"""A value for each field that is not its default."""
BESIDES: Mapping[str, Mapping[str, Any]] = {
    "sdft_top_k": {"distill_mode": "topk_forward_kl"},
    "step_eval_interval": {"step_eval": gives_nothing},
    "eval_before_training": {"step_eval": gives_nothing},
    "warm_start_from_adapter": {"lora_rank": 8},
    "wandb.project": {"wandb": recipe.WandBConfig("me", "distillation-tinker")},
    "wandb.run_name": {"wandb": recipe.WandBConfig("me", "distillation-tinker")},
}
"""What a field needs to be set with it."""
WITHOUT_A_KEY = {"runner", "eval_before_training", *(name for name in CHANGED if name.startswith("runner."))}


def pair(name: str) -> tuple[recipe.Config, recipe.Config]:
    """A config, and the same with one field changed."""
    if name.startswith("multi_teacher.teachers[]."):
        field = name.rpartition(".")[2]
        mode = "topk_forward_kl" if field == "blend_weight" else "sampled_reverse_kl"
        return tuple(replace(several(**over), distill_mode=mode) for over in ({}, {field: CHANGED[name]}))  # type: ignore[return-value]
    if name == "multi_teacher":
        return make(), make(teacher_model="", multi_teacher=CHANGED[name])
    section, _, inner = name.rpartition(".")
    start = several() if section == "multi_teacher" else make(**BESIDES.get(name, {}))
    if not section:
        return start, replace(start, **{name: CHANGED[name]})
    return start, replace(start, **{section: replace(getattr(start, section), **{inner: CHANGED[name]})})


def test_every_field_has_a_changed_value_here() -> None:
    assert sorted(CHANGED) == NAMES
    assert set(COPIED) | set(COMPUTED) <= set(NAMES)
    assert not set(COPIED) & set(COMPUTED)


@pytest.mark.parametrize("name", NAMES)
def test_a_field_is_translated_or_refused_by_name(name: str) -> None:
    before, after = pair(name)
    if name not in COPIED and name not in COMPUTED:
        with pytest.raises(InputError, match=f"^{re.escape(name.replace('[]', '[0]'))}: .* cannot be honoured"):
            translate(after)
        return
    config = translate(after).config.dump()
    if name in WITHOUT_A_KEY:
        return
    assert config != translate(before).config.dump()
    if name in COPIED:
        value: Any = config
        for part in COPIED[name].split("."):
            value = value[part]
        assert value == value_of(after, name)
