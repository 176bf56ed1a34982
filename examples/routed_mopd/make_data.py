"""Write train.jsonl and heldout.jsonl from the questions, with the prompts that only the teachers read.

The student sees the bare question. The teacher of the route sees a few answered examples before it, which show the
form of the answer that is wanted: one short sentence for what and why, a numbered list for how do I.
"""

import json
import random
from pathlib import Path

HERE = Path(__file__).parent
Message = dict[str, str]

SHORT = (
    "Answer in one short sentence.",
    ("What is a clock used for?", "A clock is used to tell the time."),
    ("Why do we cook food?", "We cook food to make it safe and tasty."),
    ("What is a pillow?", "A pillow is a soft cushion for the head."),
    ("Why do cars need fuel?", "Cars need fuel to power their engines."),
)
LIST = (
    "Answer with a numbered list of three short steps.",
    ("How do I plant a seed?", "1. Dig a small hole.\n2. Put the seed in.\n3. Water it."),
    ("How do I brush a horse?", "1. Tie the horse.\n2. Brush from neck to tail.\n3. Clean the brush."),
    ("How do I mail a parcel?", "1. Pack the box.\n2. Write the address.\n3. Take it to the post office."),
)


def conversation(system: str, *turns: tuple[str, str]) -> list[Message]:
    """A few-shot prompt without its last question."""
    messages = [{"role": "system", "content": system}]
    for question, answer in turns:
        messages += [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
    return messages


def rows(route: str, key: str, examples: list[Message], suffix: str) -> list[dict[str, object]]:
    """One row a question; `key` is the field that the route's teacher reads."""
    questions = (HERE / "questions" / f"{route}{suffix}.txt").read_text(encoding="utf-8").splitlines()
    asked = [[{"role": "user", "content": question}] for question in questions]
    return [{"messages": turn, "teacher": route, key: examples + turn} for turn in asked]


def main() -> None:
    """Write both files beside this one."""
    for name, suffix in (("train", ""), ("heldout", "_heldout")):
        short = rows("short", "teacher_messages", conversation(*SHORT), suffix)
        listed = rows("list", "list_messages", conversation(*LIST), suffix)
        mixed = short + listed
        random.Random(0).shuffle(mixed)
        text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in mixed)
        (HERE / f"{name}.jsonl").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
