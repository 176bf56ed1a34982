"""What a config of the recipe becomes, with one teacher and with several, and what is refused."""

from dataclasses import replace
from typing import Any

import pytest

from builtin.fireworks.recipe.recipe_configs import BASE, make
from builtin.fireworks.recipe.recipe_fields import OTHER, SERVED, several
from distillkit.errors import InputError
from distillkit.recipes import distillation_loop as recipe
from distillkit_builtin.fireworks.recipe.translate import translate


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
