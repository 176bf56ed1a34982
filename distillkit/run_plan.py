"""The work of a run, at most."""

from dataclasses import dataclass

from distillkit.frozen import Value


@dataclass(frozen=True, slots=True)
class Plan(Value):
    """The work of a run: upper bounds of its rows, steps and tokens."""

    rows: int
    """Row-epochs that will be admitted."""
    steps: int
    """`train.max_steps`, or what the rows are enough for."""
    optimizer_steps: int
    """Steps x `train.num_substeps`."""
    eval_rows: int
    """Held-out rows."""
    evaluations: int
    """Before, during and after training."""
    completions: int
    """Rows x `sampling.completions_per_prompt`."""
    step_rows: int
    """Rows of a step."""
    step_completions: int
    """Completions of a step."""
    longest_prompt: int
    """Tokens, of the student's prompts, held-out ones too."""
    longest_teacher_prompt: int
    """Tokens, of the teachers' prompts, held-out ones too."""
    new_tokens: int
    """Tokens of a completion: `sampling.max_completion_tokens`."""
    sample_tokens: int
    """At most: completions x max_completion_tokens."""
    score_tokens: int
    """At most, the teachers' prompts counted in."""
    train_tokens: int
    """At most, the student's prompts counted in."""
    eval_sample_tokens: int
    """At most, over all evaluations: the student's completions."""
    eval_score_tokens: int
    """At most, over all evaluations: the teachers' prompts, and the student's completions."""
    eval_teacher_tokens: int = 0
    """At most: what evaluators have teachers write (`Evaluator.requests`)."""
    eval_student_score_tokens: int = 0
    """At most: what evaluators have the student score (`Evaluator.requests`), its prompts counted in."""
