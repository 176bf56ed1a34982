"""`distillkit init`: a commented config and sample data, for one or two teachers."""

import json
from collections.abc import Mapping
from pathlib import Path

from distillkit.errors import InputError

INTRO = """\
# A distillkit run. `distillkit check config.yaml` says what it will do; `distillkit run config.yaml` does it.
# `distillkit plugins list` shows what can be chosen; `distillkit plugins show student local` shows every option.
name: my-run            # writes into runs/my-run
seed: 0

"""
DATA = """data:
  path: train.jsonl     # one {"messages": [...]} a line
  eval_path: heldout.jsonl
  epochs: 1

"""
STUDENT = """student:                # what is trained: a LoRA on this model (lora_rank: 0 trains all weights)
  name: local
  model: Qwen/Qwen3-0.6B
  lora_rank: 16
  learning_rate: 2.0e-4

"""
ONE_TEACHER = """teachers:               # a teacher of the student's family, with the same tokenizer
  - model: Qwen/Qwen3-1.7B
    # A row may hold a prompt that only the teacher reads, under the key teacher_messages.
"""
TWO_TEACHERS = """teachers:               # each row's `teacher` field names the one teacher that scores it
  - model: Qwen/Qwen3-1.7B
    route_value: arithmetic
  - model: Qwen/Qwen3-1.7B
    route_value: writing
    teacher_messages_key: writing_messages   # what only this teacher reads, in rows that are routed to it

router:
  name: field
  route_key: teacher
"""
TAIL = """
sampling:
  completions_per_prompt: 2
  max_completion_tokens: 256
  temperature: 1.0      # 1 samples the policy itself, as the loss assumes
  chat_template_kwargs: {enable_thinking: false}   # options for the chat template; Qwen3 knows this one

loss:                   # -exp(min(logprob - sampling_logprob, ratio_log_cap)) * scale * (teacher - sampling logprob)
  name: importance_sampling
  scale: 1.0

train:
  prompt_groups_per_step: 8
"""
EVALUATED = """  eval_every: 10
  save_every: 10

evaluators: [reverse_kl, exact_match]   # exact_match compares `Final: <answer>` with a row's expected_answer
"""
SINKS = "sinks: [console]\n"
Row = dict[str, object]


def config_of(data: str, teachers: str, evaluators: str) -> str:
    """The text of a config, of its parts that differ."""
    return "".join([INTRO, data, STUDENT, teachers, TAIL, evaluators, SINKS])


def write(directory: Path, teachers: int) -> list[Path]:
    """Write config and data into `directory`; returns the files. Raises InputError rather than overwrite one."""
    contents = {
        "config.yaml": config_of(DATA, ONE_TEACHER if teachers == 1 else TWO_TEACHERS, EVALUATED),
        "train.jsonl": _lines(_rows(range(2, 14), teachers)),
        "heldout.jsonl": _lines(_rows(range(14, 18), teachers)),
    }
    return write_files(directory, contents)


def write_files(directory: Path, contents: Mapping[str, str]) -> list[Path]:
    """Write files by name; returns their paths. Raises InputError rather than overwrite one."""
    present = [name for name in contents if (directory / name).exists()]
    if present:
        raise InputError(f"{directory} has {', '.join(present)} already; choose another directory")
    directory.mkdir(parents=True, exist_ok=True)
    for name, content in contents.items():
        (directory / name).write_text(content, encoding="utf-8")
    return [directory / name for name in contents]


def _rows(numbers: range, teachers: int) -> list[Row]:
    rows = [_sum(number, routed=teachers == 2) for number in numbers]
    return rows if teachers == 1 else [*rows, *(_letter(number) for number in numbers)]


def _sum(number: int, *, routed: bool) -> Row:
    question = f"Solve {number} * {number + 5}. End with exactly one line: Final: <answer>."
    answer = number * (number + 5)
    privileged = f"{question} The correct answer is {answer}. Explain briefly, then end with Final: {answer}."
    row: Row = {"messages": _user(question), "teacher_messages": _user(privileged), "expected_answer": str(answer)}
    return row | {"teacher": "arithmetic"} if routed else row


def _letter(number: int) -> Row:
    question = f"Write to a neighbour that a parcel of {number} books arrived for them."
    return {
        "messages": _user(question),
        "teacher": "writing",
        "writing_messages": _user(f"{question} Be warm, use two sentences at most, and sign as Sam."),
    }


def _user(text: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": text}]


def _lines(rows: list[Row]) -> str:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
