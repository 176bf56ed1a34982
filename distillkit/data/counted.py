"""Numbers of things, in messages."""


def counted(number: int, noun: str, several: str = "") -> str:
    """`1 row`, `2,048 rows`; `several` is the noun's plural, where that is not the noun with an s."""
    return f"{number:,} {noun if number == 1 else several or f'{noun}s'}"
