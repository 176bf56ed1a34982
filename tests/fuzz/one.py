"""Fuzz one target: `python tests/fuzz/one.py TARGET [libFuzzer's options] CORPUS`. Started by `run.py`."""

import json
import random
import sys
import warnings
from pathlib import Path
from typing import Any

import atheris

sys.path.insert(0, str(Path(__file__).parent.parent))
with atheris.instrument_imports(include=["distillkit", "distillkit_builtin", "yaml", "tomllib"]):
    from fuzz.targets import TARGETS


ODD: tuple[Any, ...] = (None, True, -1, 0, 2**31, 2**63, 10**400, 1e300, "", "token_id:3", "3", [], {}, [[]], {"3": 1})


def changed(value: Any, chance: random.Random) -> Any:
    """JSON with one value replaced, doubled or dropped: bytes alone seldom stay JSON."""
    if not value or not isinstance(value, list | dict) or chance.random() < 0.1:
        return chance.choice(ODD)
    copy = value.copy()
    place = chance.choice(range(len(copy)) if isinstance(copy, list) else list(copy))
    if chance.random() < 0.1:
        del copy[place]
    elif isinstance(copy, list) and chance.random() < 0.1:
        copy.append(copy[place])
    else:
        copy[place] = changed(copy[place], chance)
    return copy


def mutate(data: bytes, longest: int, seed: int) -> bytes:
    """Half of the time, and where that can be, a change of what is said and not of how it is written."""
    chance = random.Random(seed)
    lines = data.split(b"\n")
    place = chance.randrange(len(lines))
    try:
        value = json.loads(lines[place]) if chance.random() < 0.5 else None
    except (ValueError, RecursionError):
        value = None
    if value is None:
        return atheris.Mutate(data, longest)
    lines[place] = json.dumps(changed(value, chance)).encode()
    return b"\n".join(lines)[:longest]


def main() -> None:
    warnings.simplefilter("error", RuntimeWarning)  # numpy's, of numbers that do not fit
    _, name, *options = sys.argv
    atheris.Setup([sys.argv[0], *options], TARGETS[name], custom_mutator=mutate)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
