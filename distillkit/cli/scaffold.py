"""`distillkit init`: a commented config and sample data, for one or two teachers."""

import json
from collections.abc import Mapping
from pathlib import Path

from distillkit.cli.sample_rows import Row, sample_rows
from distillkit.errors import InputError

INTRO = """\
# A distillkit run. `distillkit check config.yaml` says what it will do; `distillkit run config.yaml` does it.
# `distillkit plugins list` shows what can be chosen; `distillkit plugins show student local` shows every option.
name: my-run            # writes into runs/my-run
seed: 0

"""
DATA = """data:
  path: train.jsonl     # one {{"messages": [...]}} a line; `distillkit init --from DATA` is for rows of yours
  eval_path: heldout.jsonl   # evaluated before and after: the verdict at the end is about these
  epochs: {epochs}             # more rows or epochs are more steps; 16 show something, a hundred and more teach

"""
STUDENT = """student:                # what is trained: a LoRA on this model (lora_rank: 0 trains all weights)
  name: local
  model: Qwen/Qwen3-0.6B
  lora_rank: 16
  learning_rate: {learning_rate}

"""
ONE_TEACHER = """teachers:               # a teacher of the student's family, with the same tokenizer
  - model: Qwen/Qwen3-1.7B
    # A row may hold a prompt that only the teacher reads, under the key teacher_messages: here, answered examples.
"""
TWO_TEACHERS = """teachers:               # each row's `teacher` field names the one teacher that scores it
  - model: Qwen/Qwen3-1.7B
    route_value: arithmetic
  - model: Qwen/Qwen3-1.7B
    route_value: writing
    teacher_messages_key: writing_messages   # what only this teacher reads, in rows that are routed to it
    # `share` says how many rows of a step a teacher gets, train.normalization: route_mean lets all count alike

router:
  name: field
  route_key: teacher
"""
TAIL = """
sampling:
  completions_per_prompt: 2
  max_completion_tokens: {tokens}
  temperature: 1.0      # 1 samples the policy itself, as the loss assumes
  chat_template_kwargs: {{enable_thinking: false}}   # options for the chat template; Qwen3 knows this one

loss:                   # -exp(min(logprob - sampling_logprob, ratio_log_cap)) * scale * (teacher - sampling logprob)
  name: importance_sampling
  scale: 1.0

train:
  prompt_groups_per_step: 8
  # weightings: [truncated]       # how much tokens count: `distillkit plugins list` has the weightings
"""
EVALUATED = """  eval_every: 8
  save_every: 10

evaluators: [reverse_kl, exact_match]   # exact_match compares `Final: <answer>` with a row's expected_answer
"""
SINKS = "sinks: [console, report]\n"
FAST = "1.0e-3   # high, to see something in 16 steps; 1e-4 to 3e-4 for long runs and larger models"


def config_of(data: str, teachers: str, evaluators: str, learning_rate: str = "2.0e-4", tokens: str = "256") -> str:
    """The text of a config, of its parts that differ."""
    student, tail = STUDENT.format(learning_rate=learning_rate), TAIL.format(tokens=tokens)
    return "".join([INTRO, data, student, teachers, tail, evaluators, SINKS])


def write_sample(directory: Path, teachers: int) -> list[Path]:
    """Write config and data into `directory`; returns the files. Raises InputError rather than overwrite one."""
    train, held_out = sample_rows(teachers)
    data = DATA.format(epochs=2 // teachers)  # so that it is 16 steps with one teacher as with two
    section = ONE_TEACHER if teachers == 1 else TWO_TEACHERS
    text = config_of(
        data, section, EVALUATED, FAST, "32     # enough for the sample rows; 256 and more for most others"
    )
    contents = {"config.yaml": text, "train.jsonl": _lines(train), "heldout.jsonl": _lines(held_out)}
    return write_files(directory, contents)


def write_files(directory: Path, contents: Mapping[str, str]) -> list[Path]:
    """Write files by name; returns their paths. Raises InputError rather than overwrite one."""
    present = [name for name in contents if (directory / name).exists()]
    if present:
        raise InputError(f"{directory} has {', '.join(present)} already; choose another directory")
    for name, content in contents.items():
        (directory / name).parent.mkdir(parents=True, exist_ok=True)
        (directory / name).write_text(content, encoding="utf-8")
    return [directory / name for name in contents]


def _lines(rows: list[Row]) -> str:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
