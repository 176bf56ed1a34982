"""Lines of `samples.jsonl` made by hand, and runs' directories with them: what a report's pages are tried on."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from pydantic import JsonValue

from distillkit.run_directory.directory import HEADER, MARKER

HOSTILE = (
    "<script>window.hurt=1</script>",
    '<img src=x onerror="window.hurt=1">',
    "</script><script>window.hurt=1</script>",
    "\u001b[31m",
    "\u202eevil",
    "\u0000",
    "&amp;",
    "{{ 7*7 }}",
    "\u2028",
    "' onfocus='window.hurt=1",
    "\ud800",
)
"""Texts of a model that wants to do something on the page."""
MIXED = (
    "na",
    "",
    "ï",
    "ve",
    " \u0627\u0644\u0639\u0631\u0628\u064a\u0629",
    "\n",
    "\t",
    "   ",
    "\u00a0",
    "",
    "",
    "",
    "🦊",
    "<|im_end|>",
)
"""Multi-byte characters over several tokens, right-to-left text, spaces of all kinds and a special token."""


def sample_line(
    tokens: Sequence[str],
    student: Sequence[float | None],
    teacher: Sequence[float | None],
    *,
    step: int = 1,
    stage: str = "train",
    route: str = "t",
    row: str = "1-a",
    sample: int = 0,
    prompt: str = "user: hello\nassistant: ",
    teacher_prompt: str | None = None,
    **more: JsonValue,
) -> dict[str, JsonValue]:
    """A line as a run writes it; `more`: what only some have, or other values."""
    held_out: dict[str, JsonValue] = {"split": "train"} if stage == "train" else {"split": "heldout", "stage": stage}
    return {
        "step": step,
        **held_out,
        "row_id": row,
        "epoch": 0,
        "sample": sample,
        "route": route,
        "policy_version": max(step - 1, 0),
        "question": "hello",
        "prompt": prompt,
        "teacher_prompts": {route: teacher_prompt or prompt},
        "text": "".join(tokens),
        "finish_reason": "stop",
        "tokens": list(tokens),
        "token_ids": list(range(len(tokens))),
        "student_logprobs": list(student),
        "teacher_logprobs": {route: list(teacher)},
        "ids_proved": {route: True},
        **more,
    }


def run_directory(
    folder: Path, lines: Sequence[Mapping[str, JsonValue]], *, name: str = "made", tail: str = ""
) -> Path:
    """A run's directory with these completions, and nothing else but its config; `tail`: a last line cut off."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / MARKER).write_text(f"{HEADER}\nname: {name}\n", encoding="utf-8")
    text = "".join(json.dumps(line) + "\n" for line in lines)
    (folder / "samples.jsonl").write_text(text + tail, encoding="utf-8")
    return folder


def long_run_lines(count: int, tokens: int = 40) -> list[dict[str, JsonValue]]:
    """`count` short completions of two routes over many steps, with an evaluation before and after."""
    words = [f" w{n}" for n in range(300)]
    lines: list[dict[str, JsonValue]] = []
    for number in range(count):
        chosen = [words[(number * 7 + 13 * at) % 300] for at in range(tokens - 1)] + ["<|im_end|>"]
        student = [-((number + 3 * at) % 17) / 8 - 0.001 for at in range(tokens)]
        teacher = [-((number * 5 + 7 * at) % 23) / 9 - 0.001 for at in range(tokens)]
        stage = "before" if number < 20 else "after" if number >= count - 20 else "train"
        row = number if stage == "before" else number - count + 20 if stage == "after" else 100 + number
        step = 0 if stage == "before" else 1 + number // 20
        route = "short" if row % 2 else "list"
        made = sample_line(
            chosen, student, teacher, step=step, stage=stage, route=route, row=f"{row}-a", special=[tokens - 1]
        )
        lines.append(made)
    return lines
