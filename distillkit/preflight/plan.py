"""How much work a run is, at most: measured on its rows, before anything is loaded."""

from distillkit.config.run_config import RunConfig
from distillkit.data.training_order import TrainingOrder
from distillkit.preflight.prompt_lengths import PromptLengths
from distillkit.run_plan import Plan


def make_plan(config: RunConfig, order: TrainingOrder, lengths: PromptLengths, held_out: PromptLengths | None) -> Plan:
    """The plan of a run: upper bounds of its rows, steps and tokens."""
    train, new = config.train, config.sampling.max_completion_tokens
    rows = lengths.rows * config.data.epochs
    steps = -(-rows // train.prompt_groups_per_step)
    if train.max_steps is not None and train.max_steps < steps:
        steps, rows = train.max_steps, train.max_steps * train.prompt_groups_per_step
    each = config.sampling.completions_per_prompt
    evaluations = _evaluations(config, steps) if held_out is not None else 0
    eval_rows = held_out.rows if held_out is not None else 0
    student_prompts, teacher_prompts = lengths.prompt_tokens(rows, order)
    measured = [lengths] if held_out is None else [lengths, held_out]
    return Plan(
        rows=rows,
        steps=steps,
        optimizer_steps=steps * substeps_of(config),
        eval_rows=eval_rows,
        evaluations=evaluations,
        completions=rows * each,
        step_rows=min(train.prompt_groups_per_step, rows),
        step_completions=min(train.prompt_groups_per_step, rows) * each,
        longest_prompt=max(each_set.student.longest for each_set in measured),
        longest_teacher_prompt=max(each_set.longest_teacher for each_set in measured),
        new_tokens=new,
        sample_tokens=rows * each * new,
        score_tokens=each * (rows * new + teacher_prompts),
        train_tokens=each * (rows * new + student_prompts),
        eval_sample_tokens=evaluations * eval_rows * new,
        eval_score_tokens=evaluations * (eval_rows * new + (held_out.teachers.total if held_out is not None else 0)),
    )


def substeps_of(config: RunConfig) -> int:
    """Optimizer steps of a step, at most: the completions of a row are never divided."""
    return min(config.train.num_substeps, config.train.prompt_groups_per_step)


def _evaluations(config: RunConfig, steps: int) -> int:
    """Before, after, and every `eval_every` steps between."""
    if not config.evaluators:
        return 0
    every = config.train.eval_every
    return 2 + ((steps - 1) // every if every else 0)
