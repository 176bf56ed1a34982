"""What TRL, transformers, PEFT, verl and Tinker's cookbook call what a config says here, for errors to name our key.

A name with dots is matched by its end, the longest first: `rollout.n` answers `actor_rollout_ref.rollout.n`.
"""

from collections.abc import Iterator, Mapping, Sequence

from pydantic import BaseModel

from distillkit.config.data_config import DataConfig
from distillkit.config.sections import SamplingConfig
from distillkit.config.train_config import TrainConfig

SECTIONS: Mapping[str, type[BaseModel]] = {
    "data": DataConfig,
    "sampling": SamplingConfig,
    "train": TrainConfig,
}
"""Whose options are found wherever they stand: `temperature` answers `student.temperature`."""
NAMES: Mapping[str, str] = {
    "name": "run_name experiment_name",
    "log_path": "output_dir logging_dir default_local_dir log_dir save_dir",
    "data.path": "dataset_name dataset_path train_files train_file dataset train_dataset",
    "data.eval_path": "val_files eval_file validation_file eval_dataset test_dataset",
    "data.epochs": "num_train_epochs num_epochs n_epochs total_epochs",
    "data.max_rows": "max_train_samples max_samples train_max_samples",
    "data.max_eval_rows": "max_eval_samples val_max_samples",
    "student.model": "model_name_or_path model_name base_model model.path pretrained_model_name_or_path",
    "student.device": "device device_map",
    "student.dtype": "dtype torch_dtype bf16 fp16",
    "student.adapter": "adapter_path load_checkpoint_path lora_path",
    "student.learning_rate": "learning_rate lr actor_learning_rate",
    "student.lr_schedule": "lr_schedule lr_scheduler_type lr_scheduler warmup_style",
    "student.warmup_steps": "warmup_steps lr_warmup_steps num_warmup_steps",
    "student.weight_decay": "weight_decay",
    "student.adam_betas": "adam_betas betas adam_beta1 adam_beta2 optim.betas",
    "student.grad_clip_norm": "grad_clip_norm max_grad_norm grad_clip clip_grad gradient_clipping",
    "student.gradient_checkpointing": "gradient_checkpointing enable_gradient_checkpointing",
    "student.micro_batch_tokens": "micro_batch_tokens ppo_max_token_len_per_gpu max_token_len_per_gpu",
    "student.lora_rank": "lora_rank lora_r r",
    "student.lora_alpha": "lora_alpha",
    "student.lora_dropout": "lora_dropout",
    "student.target_modules": "target_modules lora_target_modules",
    "teachers.0.model": "teacher_model teacher_model_name_or_path teacher_name teacher_config.base_model",
    "sampling.completions_per_prompt": "num_generations group_size rollout.n sampling.n "
    "num_return_sequences num_samples",
    "sampling.max_completion_tokens": "max_completion_length max_new_tokens max_tokens max_response_length "
    "response_length generation_max_length",
    "sampling.temperature": "rollout_temperature",
    "train.prompt_groups_per_step": "batch_size train_batch_size per_device_train_batch_size groups_per_batch "
    "prompts_per_step global_batch_size gen_batch_size rollout_batch_size",
    "train.max_steps": "num_steps total_training_steps num_training_steps max_train_steps",
    "train.num_substeps": "ppo_epochs num_mini_batches",
    "train.normalization": "loss_agg_mode loss_type loss_normalization",
    "train.eval_every": "eval_steps test_freq eval_interval eval_freq",
    "train.save_every": "save_steps save_freq save_interval checkpoint_every",
    "train.keep_last": "save_total_limit max_actor_ckpt_to_keep keep_last_n_checkpoints",
    "train.max_steps_off_policy": "async_level max_async_level staleness_threshold",
}
"""Our key to the other names of it."""
VALUES: Mapping[str, str] = {
    **dict.fromkeys(("bf16", "torch.bfloat16", "bf", "bfloat"), "bfloat16"),
    **dict.fromkeys(("fp16", "f16", "half", "torch.float16", "torch.half"), "float16"),
    **dict.fromkeys(("fp32", "f32", "float", "full", "torch.float32", "torch.float"), "float32"),
}
"""What others write for a value of an option, where it has that value."""
PLUGINS: Mapping[str, Mapping[str, str]] = {
    "loss": {
        "{name: divergence, direction: jsd}": "gkd jsd generalized_jsd generalized_jsd_loss js_divergence",
        "{name: divergence, direction: reverse}": "reverse reverse_kl rkl kl kl_divergence; of the sampled token alone "
        "it is importance_sampling, the default",
        "{name: divergence, direction: forward}": "forward forward_kl fkl",
        "{name: divergence, direction: skew}": "skew skew_kl skew_reverse_kl srkl distillm",
        "{name: divergence, direction: forward, support: teacher_topk, k: 20, tail: false}": "forward_kl_topk; with "
        "its tail (leave tail out) it is a divergence",
        "topk_cross_entropy": "topk_forward_kl sdft cross_entropy",
        "importance_sampling": "k1 sampled_reverse_kl reverse_kl_penalty policy_gradient opd",
    },
    "router": {"all": "mixture mix blend ensemble multi"},
    "scorer": {"http": "vllm sglang openai", "local": "hf transformers"},
}
"""By role, what chooses a plugin here, to what others call it; behind a semicolon what is to be said besides."""
INSTEAD: Mapping[str, str] = {
    "gradient_accumulation_steps": "a step's gradient is always summed over all its completions "
    "(train.prompt_groups_per_step), in parts of student.micro_batch_tokens tokens",
    "ppo_micro_batch_size_per_gpu": "parts are measured in tokens: student.micro_batch_tokens",
    "micro_batch_size": "parts are measured in tokens: student.micro_batch_tokens",
    "ppo_mini_batch_size": "a step of train.prompt_groups_per_step rows has train.num_substeps optimizer steps",
    "num_iterations": "completions are trained on once; train.num_substeps spreads those of a step over more steps",
    "beta": "TRL's, of generalized JSD, is an option of loss={name: divergence, direction: jsd}",
    "kl_coef": "the loss is the gap to the teacher itself, not a penalty beside a reward; loss.scale scales it",
    "kl_penalty_coef": "the loss is the gap to the teacher itself, not a penalty beside a reward; loss.scale scales it",
    "kl_loss_coef": "the loss is the gap to the teacher itself, not a penalty beside a reward; loss.scale scales it",
    "lmbda": "all completions are the student's own (on-policy), as with lmbda 1",
    "max_prompt_length": "prompts are never cut: data.max_prompt_tokens leaves out rows with a longer one",
    "filter_overlong_prompts": "data.max_prompt_tokens leaves out rows with a longer prompt",
    "max_length": "prompts are never cut; sampling.max_completion_tokens cuts completions",
    "warmup_ratio": "in steps: student.warmup_steps",
    "logging_steps": "every step is in metrics.jsonl; sinks says where metrics also go",
    "mask_truncated_completions": "a weighting of weight 0 for them: train.weightings=[truncated]",
    "report_to": "sinks says where metrics also go: sinks=[console, wandb]",
    "wandb_project": "sinks says where metrics also go: sinks=[console, wandb]",
    "project_name": "sinks says where metrics also go: sinks=[console, wandb]",
    "use_vllm": "student.sampler says where completions come from: student.sampler=vllm",
    "resume_from_checkpoint": "on the command line it is --resume, in Python resume=True",
    "ttl_seconds": "how long a Tinker server keeps checkpoints is the option checkpoint_ttl of student tinker",
    "n_gpus_per_node": "torchrun says on how many GPUs: torchrun --nproc-per-node 2 -m distillkit run config.yaml",
    "load_in_4bit": "name a model whose files are quantized as student.model",
}
"""Names that are no key under another name, and what is to be said instead."""


def named_here(
    location: Sequence[str | int], known: Sequence[str] = (), role: str = "", *, ours: bool = True
) -> str | None:
    """How what stands at `location` is said in a config of ours; None where nobody calls anything so.

    `known` are the options that a plugin of `role` has: a key of that role that is none of them helps nobody. Without
    `ours` only names of others are answered: what is in a section whose name is misspelt may well be right.
    """
    parts = [str(part) for part in location]
    for name in (".".join(parts[start:]) for start in range(len(parts))):
        if name in INSTEAD:
            return INSTEAD[name]
        for key in _keys_of_others(name) if not ours else _keys(name):
            section, _, option = key.partition(".")
            if key != ".".join(parts) and (section != role or option in known):
                return f"here it is {key}"
    return None


def lacked_here(location: Sequence[str | int], known: Sequence[str], role: str) -> str | None:
    """The option of plugins of `role` that others name at `location`, where one that has `known` lacks it."""
    parts = [str(part) for part in location]
    for name in (".".join(parts[start:]) for start in range(len(parts))):
        for key in _keys_of_others(name):
            section, _, option = key.partition(".")
            if section == role and option not in (*known, parts[-1]):
                return option
    return None


def choice_here(role: str, name: str) -> str | None:
    """How a plugin of `role` that others call `name` is chosen here: `loss={name: divergence, direction: jsd}`."""
    wanted = name.lower().replace("-", "_")
    for choice, others in PLUGINS.get(role, {}).items():
        names, _, besides = others.partition("; ")
        if wanted in names.split():
            return f"here it is {role}={choice}{besides and f'; {besides}'}"
    return None


def key_of(name: str) -> str | None:
    """Our key for a name; None where there is none."""
    parts = name.split(".")
    return next((key for start in range(len(parts)) for key in _keys(".".join(parts[start:]))), None)


def _keys_of_others(name: str) -> Iterator[str]:
    yield from (key for key, names in NAMES.items() if name in names.split())


def _keys(name: str) -> Iterator[str]:
    yield from _keys_of_others(name)
    yield from (f"{section}.{name}" for section, model in SECTIONS.items() if name in model.model_fields)
