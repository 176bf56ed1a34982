"""Names of other tools are answered with our key, and each of those keys is there."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from distillkit import ConfigError, Registry, RunConfig
from distillkit.config.other_names import INSTEAD, NAMES, PLUGINS, choice_here, key_of, named_here

MINE: dict[str, Any] = {"data": "x.jsonl", "student": {"name": "local", "model": "m"}, "teachers": [{"model": "t"}]}
KEY = re.compile(r"\b(?:data|student|sampling|train|loss|teachers|sinks)\.[a-z_0-9.]*[a-z_0-9]")


def value_at(config: Any, key: str) -> object:
    for part in key.split("."):
        config = config[int(part)] if part.isdigit() else getattr(config, part)
    return config


def test_every_key_that_is_named_is_there() -> None:
    config = RunConfig(**MINE)
    said = {key for text in INSTEAD.values() for key in KEY.findall(text)}
    assert {"student.micro_batch_tokens", "loss.scale", "train.num_substeps"} <= said
    for key in {*NAMES, *said}:
        value_at(config, key)


def test_no_name_has_two_answers() -> None:
    names = [name for text in NAMES.values() for name in text.split()] + list(INSTEAD)
    assert len(names) == len(set(names))


@pytest.mark.parametrize(
    ("over", "message"),
    [
        ({"max_prompt_length": 1}, "data.max_prompt_tokens leaves out rows with a longer one"),
        ({"data": {"path": "x", "filter_overlong_prompts": True}}, "data.max_prompt_tokens leaves out rows"),
        ({"lr": 1}, "lr: unknown key; here it is student.learning_rate"),
        ({"student": {"lr": 1}}, "student.lr: unknown key; here it is student.learning_rate"),
        ({"student": {"batch_size": 1}}, "student.batch_size: unknown key; here it is train.prompt_groups_per_step"),
        ({"train": {"batch_size": 1}}, "train.batch_size: unknown key; here it is train.prompt_groups_per_step"),
        ({"train": {"num_generations": 1}}, "here it is sampling.completions_per_prompt"),
        ({"sampling": {"max_new_tokens": 1}}, "here it is sampling.max_completion_tokens"),
        (
            {"loss": {"beta": 1}},
            "loss.beta: unknown key; TRL's, of generalized JSD, is an option of loss={name:",
        ),
        ({"loss": {"normalization": "sum"}}, "loss.normalization: unknown key; here it is train.normalization"),
        ({"loss": {"loss_agg_mode": "token-mean"}}, "loss.loss_agg_mode: unknown key; here it is train.normalization"),
        ({"loss_type": "dr_grpo"}, "loss_type: unknown key; here it is train.normalization"),
        ({"actor": {"loss_agg_mode": "x"}}, "actor.loss_agg_mode: unknown key; here it is train.normalization"),
        ({"train": {"mask_truncated_completions": True}}, "train.weightings=[truncated]"),
        ({"temperature": 1}, "temperature: unknown key; here it is sampling.temperature"),
        ({"teachers": [{"model": "t", "scorer": {"lr": 1}}]}, "teachers.0.scorer.lr: unknown key; here it is student."),
        ({"actor_rollout_ref": {"actor": {"optim": {"lr": 1}}}}, "actor_rollout_ref.actor.optim.lr: unknown key; here"),
        ({"actor_rollout_ref": {"rollout": {"n": 4}}}, "here it is sampling.completions_per_prompt"),
        ({"trainer": {"save_freq": 4}}, "trainer.save_freq: unknown key; here it is train.save_every"),
        ({"trainer": {"nobody": 4}}, "trainer: unknown key; did you mean 'train'?"),
        ({"student": {"modle": "m"}}, "student.modle: unknown key; did you mean 'model'?"),
    ],
)
def test_the_error_names_our_key(over: dict[str, Any], message: str) -> None:
    values: dict[str, Any] = {
        key: {**MINE.get(key, {}), **value} if key == "student" else value for key, value in {**MINE, **over}.items()
    }
    with pytest.raises(ConfigError) as error:
        RunConfig(**values)
    assert message in str(error.value)


def test_a_student_without_an_option_is_not_sent_to_it() -> None:
    assert named_here(["lora_rank"], ["learning_rate"], "student") is None
    assert named_here(["lr"], ["learning_rate"], "student") == "here it is student.learning_rate"
    assert named_here(["student", "learning_rate"]) is None


@pytest.mark.parametrize(
    ("over", "message"),
    [
        ({"load_checkpoint_path": "x"}, "here it is student.adapter, but student 'tinker' has no adapter"),
        ({"student": {"load_checkpoint_path": "x"}}, "student.adapter, but student 'tinker' has no adapter\n"),
        ({"student": {"max_grad_norm": 1}}, "here it is student.grad_clip_norm\n"),
        ({"trainer": {"warmup_ratio": 0.1}}, "student.warmup_steps, but student 'tinker' has no warmup_steps"),
        ({"student": {"gradient_accumulation_steps": 2}}, ", but student 'tinker' has no micro_batch_tokens"),
        ({"teachers": [{"model": "t", "lora_path": "x"}]}, "student.adapter, but student 'tinker' has no adapter"),
        ({"lr": 1}, "lr: unknown key; here it is student.learning_rate\n"),
    ],
)
def test_an_answer_fits_the_student_that_the_config_names(over: dict[str, Any], message: str) -> None:
    values = {**MINE, **over, "student": {"name": "tinker", "model": "m", **over.get("student", {})}}
    with pytest.raises(ConfigError) as error:
        RunConfig(**values)
    assert message in f"{error.value}\n"
    assert "'local' has no" not in str(error.value)


def test_a_section_that_holds_itself_ends() -> None:
    section: dict[str, Any] = {"nobody": 1}
    section |= {"a": section, "b": section}
    with pytest.raises(ConfigError, match="verl: unknown key; Known: "):
        RunConfig(**MINE, verl=section)


def test_a_name_with_dots_is_matched_by_its_end() -> None:
    assert key_of("actor_rollout_ref.actor.optim.lr") == "student.learning_rate"
    assert key_of("n") is None


def test_the_page_of_other_names_says_what_the_errors_say() -> None:
    page = Path(__file__).parents[3] / "docs" / "names-of-other-tools.md"
    rows = [line.split("|")[1:3] for line in page.read_text(encoding="utf-8").splitlines() if line.startswith("| `")]
    assert len(rows) > 15
    for there, here in rows:
        for name in re.findall(r"`([\w.]+)`", there):
            said = INSTEAD.get(name) or key_of(name)
            assert said, name
            keys = re.findall(r"`([\w.]+)`", here)
            assert not keys or any(key in said for key in keys), (name, said)


@pytest.mark.parametrize(
    ("over", "message"),
    [
        ({"student": {"dtype": "bf16"}}, "student.dtype: .* not 'bf16'; did you mean 'bfloat16'"),
        ({"student": {"dtype": "torch.bfloat16"}}, "did you mean 'bfloat16'"),
        ({"student": {"dtype": "FP32"}}, "did you mean 'float32'"),
        ({"student": {"dtype": "float23"}}, "did you mean 'float32'"),
        ({"student": {"export_dtype": "fp32"}}, "did you mean 'float32'"),
        ({"teachers": [{"model": "t", "scorer": {"name": "local", "dtype": "fp16"}}]}, "did you mean 'float16'"),
        ({"student": {"lr_schedule": "cosin"}}, "did you mean 'cosine'"),
    ],
)
def test_a_value_that_others_write_or_that_is_nearly_right_is_answered(over: dict[str, Any], message: str) -> None:
    student = {**MINE["student"], **over.get("student", {})}
    with pytest.raises(ConfigError, match=message):
        RunConfig(**{**MINE, **over, "student": student})


@pytest.mark.parametrize("dtype", ["fp16", "int8", 16, None])
def test_where_there_is_no_such_value_none_is_meant(dtype: object) -> None:
    with pytest.raises(ConfigError) as caught:
        RunConfig(**{**MINE, "student": {**MINE["student"], "dtype": dtype}})
    assert "student.dtype: input should be" in str(caught.value)
    assert "did you mean" not in str(caught.value)


NAMES_OF_PLUGINS = [
    (role, choice, name)
    for role, choices in PLUGINS.items()
    for choice, names in choices.items()
    for name in names.partition(";")[0].split()
]


def test_what_others_call_a_plugin_has_one_answer_which_can_be_built() -> None:
    registry = Registry.discover()
    pairs = [(role, name) for role, _, name in NAMES_OF_PLUGINS]
    assert len(pairs) == len(set(pairs))
    assert not [pair for pair in pairs if pair[1] in registry.names(pair[0])]
    for role, choice, name in NAMES_OF_PLUGINS:
        assert f"here it is {role}={choice}" in str(choice_here(role, name))
        chosen = yaml.safe_load(choice)
        if role != "scorer":  # http wants its server's address
            registry.build(role, chosen)
        assert (chosen if isinstance(chosen, str) else chosen["name"]) in registry.names(role)


@pytest.mark.parametrize(
    ("loss", "message"),
    [
        ("jsd", "no loss is named 'jsd'; here it is loss={name: divergence, direction: jsd}"),
        ("GKD", "here it is loss={name: divergence, direction: jsd}"),
        ("reverse-kl", "direction: reverse}; of the sampled token alone it is importance_sampling"),
        ({"name": "topk_forward_kl", "k": 5}, "here it is loss=topk_cross_entropy"),
        ("sampled_reverse_kl", "here it is loss=importance_sampling"),
        ("divergance", "did you mean 'divergence'? Known: "),
    ],
)
def test_a_loss_that_others_call_so_is_answered_with_ours(loss: object, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        RunConfig(**MINE, loss=loss)
    assert message in str(caught.value)
    assert ("Known: " in message) == ("Known: " in str(caught.value))
