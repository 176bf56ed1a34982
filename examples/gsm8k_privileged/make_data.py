"""Turn GSM8K into rows with a privileged prompt: the teacher reads the worked solution, the student only the problem.

    python make_data.py path/to/gsm8k    # a folder with train.jsonl and test.jsonl, as in openai/grade-school-math
    python make_data.py openai/gsm8k     # from the Hugging Face hub (pip install datasets)

Writes train.jsonl and heldout.jsonl beside this file. Those that lie here hold the first 64 and 32 problems of GSM8K
(MIT licence, see LICENSE).
"""

import argparse
import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path

HERE = Path(__file__).parent
ASK = "Explain briefly, then end with exactly one line: Final: <answer>."


def problems(source: str, split: str) -> Iterator[Mapping[str, str]]:
    """The `question` and `answer` of each problem, from a folder or from the hub."""
    path = Path(source) / f"{split}.jsonl"
    if path.is_file():
        with path.open(encoding="utf-8") as file:
            yield from map(json.loads, file)
    else:
        from datasets import load_dataset

        yield from load_dataset(source, "main", split=split)


def row(problem: Mapping[str, str]) -> dict[str, object]:
    """One problem as a row. GSM8K marks calculations by <<...>> and the answer by ####."""
    solution, _, answer = problem["answer"].partition("\n#### ")
    solution = re.sub(r"<<[^>]*>>", "", solution)
    question = f"{problem['question'].strip()}\n{ASK}"
    told = f"{question}\n\nA worked solution, for you alone:\n{solution}\nFinal: {answer}"
    return {
        "messages": [{"role": "user", "content": question}],
        "teacher_messages": [{"role": "user", "content": told}],
        "expected_answer": answer.strip(),
    }


def write(path: Path, source: str, split: str, count: int | None) -> None:
    """The first `count` problems of a split; None: all."""
    with path.open("w", encoding="utf-8") as file:
        for number, problem in enumerate(problems(source, split)):
            if number == count:
                break
            file.write(json.dumps(row(problem), ensure_ascii=False) + "\n")


def main() -> None:
    """Write both files."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", help="a folder with train.jsonl and test.jsonl, or a dataset on the hub")
    parser.add_argument("--train", type=int, default=None, help="problems to train on; default: all")
    parser.add_argument("--heldout", type=int, default=200, help="held-out problems")
    arguments = parser.parse_args()
    write(HERE / "train.jsonl", arguments.source, "train", arguments.train)
    write(HERE / "heldout.jsonl", arguments.source, "test", arguments.heldout)


if __name__ == "__main__":
    main()
