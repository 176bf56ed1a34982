"""What teachers are called: for people by the last part of a model's path, in metric names by what is safe there.

Both depend on all teachers of a run, since no two may be called the same. The route value, by which rows, scores and
checkpoints know a teacher, is neither of them, so that what a teacher is called never makes a run another run.
"""

import hashlib
import re
from collections import Counter
from collections.abc import Sequence

UNSAFE = re.compile(r"[^A-Za-z0-9_.-]+")
RESERVED = frozenset({"student"})
"""What other metrics than teachers' have in the same place (`concurrency/student/window`)."""
LONGEST = 64
"""Characters of a name in metric names."""


def shown_names(names: Sequence[str], models: Sequence[str]) -> tuple[str, ...]:
    """How people read each teacher: its route value, or of a model by which it is known the last part of the path.

    Where two would be called the same, as many parts as tell them apart. Names are unique, and so is what is returned.
    """
    parts = [_parts(name) if name == model else [name] for name, model in zip(names, models, strict=True)]
    lengths = [1] * len(parts)
    while True:
        shown = ["/".join(each[-length:]) for each, length in zip(parts, lengths, strict=True)]
        count = Counter(shown)
        longer = [i for i, name in enumerate(shown) if count[name] > 1 and lengths[i] < len(parts[i])]
        if not longer:
            return tuple(name if count[text] > 1 else text for name, text in zip(names, shown, strict=True))
        for i in longer:
            lengths[i] += 1


def _parts(path: str) -> list[str]:
    return [part for part in re.split(r"[/\\]", path) if part] or [path]


def slugs(shown: Sequence[str], names: Sequence[str]) -> tuple[str, ...]:
    """What metric names call each teacher: what people read, made safe.

    With ten hex digits of the name's SHA-256 behind it where that does not tell which teacher it is: two would be
    called the same, or letters were lost.
    """
    safe = [UNSAFE.sub("-", text).strip("-") for text in shown]
    count = Counter(safe)
    return tuple(
        made if count[made] == 1 and _is_clear(text, made) else _hashed(made, name)
        for text, made, name in zip(shown, safe, names, strict=True)
    )


def _is_clear(text: str, made: str) -> bool:
    lost = any(character.isalnum() and not character.isascii() for character in text)
    return bool(made) and not lost and len(made) <= LONGEST and made not in RESERVED


def _hashed(made: str, name: str) -> str:
    return f"{made[:40] or 'teacher'}-{hashlib.sha256(name.encode()).hexdigest()[:10]}"
