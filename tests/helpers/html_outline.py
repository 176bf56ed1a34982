"""What an HTML page is made of, for tests: elements in order with their attributes, and the text in them."""

import json
from dataclasses import dataclass, field
from html.parser import HTMLParser
from typing import Any

VOID = {"meta", "input", "br", "link", "img"}


@dataclass
class Element:
    """One element."""

    name: str
    attributes: dict[str, str]
    inside: tuple[str, ...]
    """The names of the elements that it is in."""
    text: str = ""
    """All text in it."""


@dataclass
class Outline(HTMLParser):
    """All elements of a page. Raises AssertionError for an end without its beginning."""

    elements: list[Element] = field(default_factory=list)
    open: list[Element] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__init__(convert_charrefs=True)

    def __hash__(self) -> int:
        return id(self)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        made = Element(tag, {name: value or "" for name, value in attrs}, tuple(each.name for each in self.open))
        self.elements.append(made)
        if tag not in VOID:
            self.open.append(made)

    def handle_endtag(self, tag: str) -> None:
        assert self.open, f"</{tag}> ends nothing"
        assert self.open[-1].name == tag, f"</{tag}> ends a {self.open[-1].name}"
        self.open.pop()

    def handle_data(self, data: str) -> None:
        for each in self.open:
            each.text += data

    def all(self, name: str) -> list[Element]:
        """The elements of a name."""
        return [each for each in self.elements if each.name == name]

    def data(self, section: str) -> Any:
        """What the scripts of a section read."""
        (found,) = (each for each in self.all("script") if each.attributes.get("id") == f"data-{section}")
        return json.loads(found.text)


def outline(html: str) -> Outline:
    """The elements of a page, each of which ends."""
    found = Outline()
    found.feed(html)
    found.close()
    assert not found.open
    return found
