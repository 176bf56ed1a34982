"""A part of a report's page: its HTML, the data that its scripts read, and the scripts and styles themselves."""

from collections.abc import Mapping
from dataclasses import dataclass

from markupsafe import Markup
from pydantic import JsonValue

from distillkit.frozen import Value


@dataclass(frozen=True, slots=True)
class ReportSection(Value):
    """One part of the page, in a `<section>` of its own with a heading and a place in the table of contents."""

    id: str
    """Of the element, and in links: lower-case letters and hyphens."""
    title: str
    """The heading; escaped by the page."""
    html: Markup
    """What stands below the heading. Only what a template rendered, or `Markup.format` of it, is `Markup`."""
    data: Mapping[str, JsonValue] | None = None
    """What its scripts read: `JSON.parse(document.getElementById("data-" + id).textContent)`."""
    styles: tuple[str, ...] = ()
    """Names of files in `assets/` or `vendor/`, each of which the page holds once."""
    scripts: tuple[str, ...] = ()
    """The same; they run in order behind the page's own `page.js`, at the end of the body."""
