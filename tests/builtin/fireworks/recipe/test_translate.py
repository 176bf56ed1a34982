"""Every field of the recipe becomes something, or is refused by name."""

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, ClassVar

import pytest

from builtin.fireworks.recipe.recipe_configs import BASE, NAMES, make
from distillkit.errors import InputError
from distillkit.events import StepFinished
from distillkit.recipes import distillation_loop as recipe
from distillkit_builtin.fireworks.recipe.config_mapping import COMPUTED, COPIED, value_of
from distillkit_builtin.fireworks.recipe.metrics import recipe_wandb
from distillkit_builtin.fireworks.recipe.translate import translate

OTHER = "accounts/fireworks/models/other"


SERVED = "accounts/acme/deployedModels/served"


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


def several(**first: Any) -> recipe.Config:
    teachers = [recipe.TeacherConfig(**{"model": BASE, "route_value": "a"} | first), recipe.TeacherConfig(OTHER, "b")]
    return make(teacher_model="", multi_teacher=recipe.MultiTeacherConfig(teachers))


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


def test_the_defaults_are_the_recipes() -> None:
    config = translate(make()).config
    student: Any = config.student
    assert (student.adam_betas, student.weight_decay, student.lora_rank) == ((0.9, 0.95), 0.01, 0)
    assert (student.learning_rate, student.timeouts.step, student.concurrency.initial) == (1e-5, 3600, 8)
    assert config.loss.model_dump() == {
        "scale": 1.0,
        "ratio_log_cap": 20.0,
        "advantage_clip": None,
        "ratio_gate": None,
        "extrapolate": None,
        "anchor": None,
        "control": None,
        "control_advantage": -0.1,
    }
    assert config.train.normalization == "sum"
    assert (config.data.max_rows, config.data.epochs, config.data.shuffle) == (100, 1, False)
    assert (config.sampling.completions_per_prompt, config.sampling.max_completion_tokens) == (1, 1024)
    assert (config.train.prompt_groups_per_step, config.train.weight_sync_interval, config.train.save_every) == (
        1,
        1,
        10,
    )
    assert (config.name, config.log_path) == ("logs", "logs/run")
    assert config.router.name == "single"
    assert [sink.name for sink in config.sinks] == ["console", "recipe"]
    assert not config.evaluators


def test_an_enum_of_the_sdk_is_a_normalization_too() -> None:
    client = pytest.importorskip("fireworks.training.sdk.client")
    cfg = make(grad_accumulation_normalization=client.GradAccNormalization.NUM_LOSS_TOKENS)
    student: Any = translate(cfg).config.student
    assert student.grad_accumulation_normalization == "num_loss_tokens"


def test_several_teachers_are_routed_and_one_may_be_used_as_it_is() -> None:
    teachers = [
        recipe.TeacherConfig(BASE, "a", deployment_shape="accounts/f/deploymentShapes/own"),
        recipe.TeacherConfig(OTHER),
        recipe.TeacherConfig(SERVED, "c", teacher_messages_key="hints", tokenizer_model="mine"),
    ]
    cfg = make(
        teacher_model="",
        multi_teacher=recipe.MultiTeacherConfig(teachers, "who"),
        teacher_deployment_shape="accounts/f/deploymentShapes/all",
        teacher_replica_count=2,
    )
    config = translate(cfg).config
    assert config.router.model_dump() == {"route_key": "who"}
    assert [section.teacher.name for section in config.teachers] == ["a", OTHER, "c"]
    scorers: list[Any] = [section.scorer for section in config.teachers]
    assert [scorer.deployment.deployment_shape for scorer in scorers] == [
        "accounts/f/deploymentShapes/own",
        "accounts/f/deploymentShapes/all",
        None,
    ]
    assert [scorer.deployment.replica_count for scorer in scorers] == [2, 2, 1]
    assert config.teachers[2].teacher.messages_key == "hints"


def test_one_teacher_of_multi_teacher_takes_every_row_unless_a_route_key_is_set() -> None:
    alone = recipe.MultiTeacherConfig([recipe.TeacherConfig(BASE)])
    assert translate(make(teacher_model="", multi_teacher=alone)).config.router.name == "single"
    keyed = replace(alone, route_key="who")
    assert translate(make(teacher_model="", multi_teacher=keyed)).config.router.name == "field"


@pytest.mark.parametrize(
    ("over", "message"),
    [
        ({"teacher_model": ""}, "teacher_model: set it"),
        ({"multi_teacher": recipe.MultiTeacherConfig([])}, "teacher_model: multi_teacher is set too"),
        ({"teacher_model": SERVED, "teacher_replica_count": 2}, "teacher_replica_count: no deployment is made"),
        ({"teacher_model": SERVED, "teacher_deployment_timeout_s": 2}, "teacher_deployment_timeout_s: no deployment"),
        ({"weight_sync_interval": 0}, "weight_sync_interval: 0 cannot be honoured"),
        ({"trainer": recipe.TrainerConfig()}, "trainer.training_shape_id: is required"),
        ({"deployment": recipe.DeployConfig()}, "deployment.tokenizer_model: is required"),
        ({"output_model_id": "m", "save_final_checkpoint": False}, "output_model_id: cannot be honoured"),
        ({"step_eval_interval": 1}, "step_eval_interval: cannot be honoured without step_eval"),
        ({"eval_before_training": True}, "eval_before_training: cannot be honoured without step_eval"),
        ({"wandb": recipe.WandBConfig(project="p")}, "wandb.project: cannot be honoured without wandb.entity"),
        ({"learning_rate": -1.0}, "learning_rate: .*greater than 0"),
        ({"opd_loss_scale": 0.0}, "opd_loss_scale: .*greater than 0"),
        ({"trainer": recipe.TrainerConfig(None, "s"), "prompt_groups_per_step": 0}, "prompt_groups_per_step: "),
        ({"trainer": recipe.TrainerConfig(None, "s", inactivity_timeout="2h")}, "trainer.inactivity_timeout: is '2h'"),
        ({"trainer": recipe.TrainerConfig(None, "s", inactivity_timeout="14400s")}, "trainer.inactivity_timeout: "),
        ({"deployment": recipe.DeployConfig(tokenizer_model="t", replica_count=0)}, "deployment.replica_count: "),
        ({"teacher_replica_count": 0}, "teacher_replica_count: "),
        ({"grad_accumulation_normalization": "mean"}, "grad_accumulation_normalization: "),
        ({"trainer": {"training_shape_id": "s"}}, "trainer: wants .*TrainerConfig"),
        ({"distill_mode": "other"}, "distill_mode: 'other' cannot be honoured: only sampled_reverse_kl and topk_"),
        ({"sdft_top_k": 3}, "sdft_top_k: 3 cannot be honoured: it belongs to distill_mode topk_forward_kl"),
        ({"distill_mode": "topk_forward_kl", "sdft_top_k": 6}, "sdft_top_k: is 6; it wants 1 to 5"),
        ({"distill_mode": "topk_forward_kl", "sdft_top_k": 0}, "sdft_top_k: is 0; it wants 1 to 5"),
        ({"distill_mode": "topk_forward_kl", "opd_loss_scale": 2.0}, "opd_loss_scale: 2.0 cannot be honoured"),
        ({"distill_mode": "topk_forward_kl", "ratio_log_cap": 2.0}, "ratio_log_cap: 2.0 cannot be honoured"),
        ({"dataset": ""}, "dataset: is empty"),
    ],
)
def test_what_is_wrong_is_told_by_the_recipes_names(over: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        translate(make(**over))


@pytest.mark.parametrize("mode", ["topk_forward_kl", recipe.DistillMode.TOPK_FORWARD_KL])
def test_the_top_k_of_several_teachers_are_blended_by_their_weights(mode: Any) -> None:
    config = translate(replace(several(blend_weight=3.0), distill_mode=mode, sdft_top_k=4)).config
    assert (config.loss.name, config.loss.model_dump()) == ("topk_cross_entropy", {"k": 4})
    assert config.router.name == "all"
    assert [section.teacher.weight for section in config.teachers] == [3.0, 1.0]
    alone = translate(make(distill_mode=mode)).config
    assert (alone.router.name, alone.loss.model_dump()) == ("single", {"k": 5})


def test_a_route_key_or_a_weight_that_would_do_nothing_is_refused() -> None:
    routed = replace(several(), distill_mode="topk_forward_kl")
    assert routed.multi_teacher is not None
    keyed = replace(routed, multi_teacher=replace(routed.multi_teacher, route_key="who"))
    with pytest.raises(InputError, match=r"multi_teacher\.route_key: 'who' cannot be honoured: .*every teacher scores"):
        translate(keyed)
    with pytest.raises(InputError, match=r"multi_teacher\.teachers\[0\]\.blend_weight: 2.0 .*exactly one teacher"):
        translate(several(blend_weight=2.0))
    with pytest.raises(InputError, match=r"blend_weight: .*greater than 0"):
        translate(replace(several(blend_weight=0.0), distill_mode="topk_forward_kl"))


def test_all_that_is_wrong_is_told_at_once() -> None:
    cfg = make(sdft_top_k=2, weight_sync_interval=0, trainer=recipe.TrainerConfig(purpose="X", node_count=2))
    with pytest.raises(InputError) as caught:
        translate(cfg)
    names = [line.partition(":")[0] for line in str(caught.value).splitlines()]
    assert names == [
        "sdft_top_k",
        "trainer.node_count",
        "trainer.purpose",
        "trainer.training_shape_id",
        "weight_sync_interval",
    ]


def test_what_main_alone_takes_is_refused_too(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match="rlor_mgr: cannot be honoured"):
        recipe.main(make(), rlor_mgr=object())
    monkeypatch.setenv("FIREWORKS_API_EXTRA_HEADERS", '{"x": "y"}')
    with pytest.raises(InputError, match="FIREWORKS_API_EXTRA_HEADERS is set"):
        recipe.main(make())


def test_weights_and_biases_gets_both_names() -> None:
    class Run:
        logged: ClassVar[dict[str, float]] = {}

        def log(self, metrics: dict[str, float], step: int) -> None:
            self.logged.update(metrics, at=step)

    (sink,) = recipe_wandb(make(wandb=recipe.WandBConfig("me", "mine"), opd_loss_scale=2.0))
    sink._run = Run()  # type: ignore[assignment]  # it only logs
    times = {"time/forward_backward": 1.5, "time/optim_step": 0.5}
    sink.emit(StepFinished(3, {"train/reverse_kl": 0.5, "train/abs_advantage": 4.0, **times}))
    assert Run.logged == {
        "at": 3,
        "train/step": 3.0,
        "train/reverse_kl": 0.5,
        "train/abs_advantage": 4.0,
        **times,
        "perf/fwd_bwd_time": 1.5,
        "perf/optim_step_time": 0.5,
        "train/opd_sampled_reverse_kl": 0.5,
        "train/opd_student_logprob_minus_teacher_logprob": 0.5,
        "train/opd_teacher_logprob_minus_student_logprob": -0.5,
        "train/opd_abs_advantage": 4.0,
        "train/opd_abs_logprob_gap": 2.0,
    }
    topk = make(wandb=recipe.WandBConfig("me", "mine"), distill_mode="topk_forward_kl", sdft_top_k=3)
    (sink,) = recipe_wandb(topk)
    Run.logged = {}
    sink._run = Run()  # type: ignore[assignment]  # it only logs
    sink.emit(StepFinished(1, {"train/reverse_kl": 0.5, "train/active_tokens": 7.0}))
    assert {name: value for name, value in Run.logged.items() if name.startswith(("train/opd", "train/sdft"))} == {
        "train/sdft_active_positions": 7.0,
        "train/sdft_top_k": 3.0,
    }
    assert recipe_wandb(make()) == []
