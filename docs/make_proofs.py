"""Write the table of docs/prove-a-loss.md: every built-in loss and option, proven. `python docs/make_proofs.py`.

A test runs `page()` and compares, so the table cannot fall behind; and it refuses an option that no line of it sets.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

from distillkit import Loss, Registry
from distillkit.testing import Proof, ProofCheck, prove_loss

PAGE = Path(__file__).parent / "prove-a-loss.md"
START, END = "<!-- made by docs/make_proofs.py -->\n", "<!-- end -->\n"
Lines = Sequence[Mapping[str, Sequence[Any]]]
DIRECTIONS = ["reverse", "forward", "jsd", "skew"]
OPTIONS: Mapping[str, Lines] = {
    "importance_sampling": [
        {},
        {"scale": [0.5]},
        {"ratio_log_cap": [0.1]},
        {"advantage_clip": [0.5]},
        {"ratio_gate": [{"action": "zero"}, {"action": "cap"}]},
        {"extrapolate": [{"reference": "base"}]},
        {"anchor": [{"to": "start"}]},
        {"control": ["constant"], "control_advantage": [-0.2]},
    ],
    "divergence": [
        {"direction": DIRECTIONS},
        {"direction": ["jsd"], "beta": [0.0, 0.9, 1.0]},
        {"direction": ["skew"], "beta": [0.0, 0.5]},
        {"direction": DIRECTIONS, "temperature": [2.0]},
        {"direction": DIRECTIONS, "support": ["teacher_topk", "student_topk", "union"], "k": [4]},
        {"direction": DIRECTIONS, "support": ["teacher_topk"], "k": [4], "tail": [False]},
    ],
    "entropy_aware": [
        {},
        {"threshold": [1.5]},
        {"forward_weight": [0.5]},
        {"support": ["teacher_topk"], "k": [4], "tail": [True, False]},
    ],
    "topk_cross_entropy": [{"k": [5]}],
}
"""Loss to the options of its lines: each combination of the values listed makes one. Without an entry: the defaults."""
COLUMNS = {
    "loss of each position": "each position",
    "independent positions": "independent",
    "expected gradient": "expected gradient",
    "teacher felt": "teacher felt",
    "equal teacher": "equal teacher",
    "another teacher": "another teacher",
    "masks": "masks",
    "weights": "weights",
}
MARKS = {"passed": "yes", "not claimed": "-", "failed": "**no**"}


def page() -> str:
    """The page with its table as it is to be."""
    before, _, rest = PAGE.read_text(encoding="utf-8").partition(START)
    return f"{before}{START}{table()}{END}{rest.partition(END)[2]}"


def table() -> str:
    """A line a loss and choice of options. Raises LookupError for an option that none sets."""
    rows = [f"| loss | options | {' | '.join(COLUMNS.values())} |", f"|---|---|{'---|' * len(COLUMNS)}"]
    registry = Registry.discover()
    for info in registry.infos("loss"):
        if info.distribution == "distillkit":
            chosen = list(combinations(OPTIONS.get(info.name, [{}])))
            require_all_set(info.name, info.cls, chosen)
            rows += [line(registry.build("loss", {"name": info.name, **options}), options) for options in chosen]
    return "\n".join(rows) + "\n"


def combinations(lines: Lines) -> Iterator[dict[str, Any]]:
    """The options of each line of the table."""
    for values in lines:
        for each in product(*values.values()):
            yield dict(zip(values, each, strict=True))


def require_all_set(name: str, cls: Any, chosen: Sequence[Mapping[str, Any]]) -> None:  # noqa: ANN401 - a plugin's class
    """Raise LookupError unless each option is set somewhere, and each value of those that have few."""
    for option, field in cls.model_fields.items():
        found = [options[option] for options in chosen if option in options]
        values = get_args(field.annotation) if get_origin(field.annotation) is Literal else ()
        lacking = [value for value in values if value not in (*found, field.default)]
        if lacking or not found:
            what = f"{option}={lacking[0]}" if lacking else option
            raise LookupError(f"no line of the table of proofs sets {name}.{what}: add it to OPTIONS in {__file__}")


def line(loss: Any, options: Mapping[str, Any]) -> str:  # noqa: ANN401 - what the registry builds
    """The proof of a loss as a row."""
    if not isinstance(loss, Loss):
        raise TypeError(loss)
    proof: Proof = prove_loss(loss)
    checks: Mapping[str, ProofCheck] = {check.name: check for check in proof.checks}
    written = (
        ", ".join(f"`{key}={json.dumps(value).strip(chr(34))}`" for key, value in options.items()) or "the defaults"
    )
    marks = [MARKS[checks[name].result] if name in checks else "" for name in COLUMNS]
    return f"| `{loss.name}` | {written} | {' | '.join(marks)} |"


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
