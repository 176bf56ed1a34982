"""What makes a run this run: two runs of the same identity give the same numbers, so one may go on for the other."""

import hashlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path

from pydantic import JsonValue

from distillkit.config import RunConfig, plugins_in
from distillkit.errors import InputError
from distillkit.preflight import Preflight
from distillkit.render import Side
from distillkit.tokenizer import fingerprint
from distillkit.types import Message

MAY_CHANGE = frozenset(
    {
        "name",
        "log_path",
        "plugins",
        "sinks",
        "evaluators",
        "guards",
        "prices",
        "data.path",  # its content is compared
        "data.eval_path",
        "data.max_eval_rows",
        "data.epochs",
        "train.max_steps",
        "train.eval_every",
        "train.save_every",
        "train.keep_last",
        "train.sample_every",
        "train.samples_per_route",
        "train.max_bad_steps",
        "train.max_failed_fraction",
        "train.warn_logprob_mismatch",
    }
)
"""Keys of a config that say how long a run goes on, how it is watched, and where it writes."""
WHY = Message("user", "Why?")
TEMPLATE_PROBES = ((Message("system", "Be brief."), WHY, Message("assistant", "So."), WHY), (WHY,))
"""The second is for templates that know no system turn."""


def identity_of(flight: Preflight) -> dict[str, JsonValue]:
    """The parts that must stay, by name: settings by their key, data and tokenizers by fingerprint."""
    sides = {"student": flight.renderer.student}
    sides |= {f"teacher {name!r}": side for name, side in flight.renderer.teachers.items()}
    return {
        **dict(_settings(flight.config)),
        "the rows of data.path": _digest(Path(flight.config.data.path)),
        **{f"the tokenizer or chat template of {who}": _tokens(side) for who, side in sides.items()},
    }


def require_same(then: Mapping[str, JsonValue], now: Mapping[str, JsonValue], checkpoint: Path) -> None:
    """Raise InputError if a checkpoint is of another run, naming all that has changed."""
    changed = list(changes(then, now))
    if changed:
        raise InputError(
            "\n".join(
                [
                    f"{checkpoint} was written by another run than this one would be:",
                    *(f"  {line}" for line in changed),
                    "take the changes back, begin anew by --overwrite, or go on all the same by --resume --force "
                    "(in Python: force=True)",
                ]
            )
        )


def changes(then: Mapping[str, JsonValue], now: Mapping[str, JsonValue]) -> Iterator[str]:
    """One line for each part that is not what it was."""
    for name in dict.fromkeys([*then, *now]):
        before, after = then.get(name), now.get(name)
        if before == after:
            continue
        if name.startswith("the "):
            yield f"{name} changed"
        else:
            yield f"{name} was {_shown(before)}, is {_shown(after)}"


def _settings(config: RunConfig) -> Iterator[tuple[str, JsonValue]]:
    volatile = {f"{key}.{option}" for key, _, plugin in plugins_in(config) for option in plugin.volatile}
    for key, value in _leaves(config.dump()):
        general = {".".join(key.split(".")[:length]) for length in range(1, key.count(".") + 2)}
        if not general & MAY_CHANGE and not general & volatile:
            yield key, value


def _leaves(value: JsonValue, key: str = "") -> Iterator[tuple[str, JsonValue]]:
    if isinstance(value, Mapping) and value:
        for name, inner in value.items():
            yield from _leaves(inner, f"{key}.{name}" if key else name)
    elif isinstance(value, list) and value and isinstance(value[0], Mapping):
        for place, inner in enumerate(value):
            yield from _leaves(inner, f"{key}.{place}")
    else:
        yield key, value


def _tokens(side: Side) -> str:
    rendered = []
    for messages in TEMPLATE_PROBES:
        try:
            rendered.append(side.tokenizer.render(messages, side.template_options))
        except InputError as error:  # a template that refuses these turns is known by what it says
            rendered.append([len(str(error))])
    return hashlib.sha256(json.dumps([fingerprint(side.tokenizer), rendered]).encode()).hexdigest()[:16]


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:16]


def _shown(value: JsonValue) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 80 else f"{text[:77]}..."
