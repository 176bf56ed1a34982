"""A JSON value with another in its place, of the same type and length: if nobody sees the difference, nobody reads it.

Templates check what they are given (an id of nine letters, a role, a schema), so a value is not taken away.
"""

import unicodedata

from pydantic import JsonValue


def other_character(character: str) -> str:
    """`x`, or `y` for whatever a tokenizer may read as an `x`; spaces stay."""
    if character.isspace():
        return character
    return "y" if unicodedata.normalize("NFKC", character).casefold() == "x" else "x"


def other_text(text: str) -> str:
    """Every letter, digit and mark exchanged."""
    return "".join(map(other_character, text))


def other_value(value: JsonValue) -> JsonValue:
    """Every text, number and truth value in it exchanged; the same where it holds none."""
    if isinstance(value, str):
        return other_text(value)
    if isinstance(value, bool):
        return not value
    if isinstance(value, int | float):
        return 7 if value != 7 else 8
    if isinstance(value, list):
        return [other_value(item) for item in value]
    if isinstance(value, dict):
        return {key: other_value(item) for key, item in value.items()}
    return None


def other_object(value: JsonValue) -> JsonValue:
    """Its values exchanged, or, where it has none to exchange, its keys."""
    other = other_value(value)
    if other != value or not isinstance(value, dict):
        return other
    return {f"{key}x": item for key, item in value.items()}


def other_end(text: str, at: int) -> str:
    """The first (0) or last (-1) character that is no space exchanged."""
    inner = text.strip()
    start, stop = text.index(inner), text.index(inner) + len(inner)
    place = start if at == 0 else stop - 1
    return f"{text[:place]}{other_character(text[place])}{text[place + 1 :]}"


def marked_texts(value: JsonValue, word: str) -> JsonValue:
    """`word` for every text in it; types in a schema stay, since templates know only those that there are."""
    if isinstance(value, str):
        return word if value.strip() else value
    if isinstance(value, list):
        return [marked_texts(item, word) for item in value]
    if isinstance(value, dict):
        return {key: item if key == "type" else marked_texts(item, word) for key, item in value.items()}
    return value
