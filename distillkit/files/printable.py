"""Texts of models and data on a terminal, whose cursor and colours they must not move."""


def printable(text: str, *, keep: str = "") -> str:
    """The text with each character that is not printable as its escape, but for those of `keep`."""
    return "".join(
        each if each.isprintable() or each in keep else each.encode("unicode_escape").decode() for each in text
    )
