"""The page: sections one below the other, with all that they need in the file itself.

A Content-Security-Policy stands in the page: nothing is loaded from anywhere, no form is sent, and of scripts and
styles only those run whose SHA-256 it names. So text that got around the escaping would still do nothing.
"""

import base64
import hashlib
from collections.abc import Iterable, Sequence
from pathlib import Path

from markupsafe import Markup

from distillkit.report.html_templates import json_in_html, rendered
from distillkit.report.section import ReportSection

HERE = Path(__file__).parent
PAGE_STYLES = ("page.css",)
PAGE_SCRIPTS = ("page.js",)
MOST_BYTES = 5_000_000
"""Of a whole page, so that it can be sent by mail."""


def page_html(title: str, subtitle: str, sections: Sequence[ReportSection], *, connects: bool = False) -> str:
    """The whole page.

    Args:
        title: how the page is called: the name of the run.
        subtitle: one line below it.
        sections: in the order in which they stand there.
        connects: let its scripts ask the server that it came from, as `distillkit view` does; a file asks nobody.
    """
    styles = [asset(name) for name in _once(PAGE_STYLES, *(section.styles for section in sections))]
    scripts = [asset(name) for name in _once(PAGE_SCRIPTS, *(section.scripts for section in sections))]
    data = {section.id: json_in_html(section.data) for section in sections if section.data is not None}
    policy = _policy(styles, scripts, connects=connects)
    parts = {"title": title, "subtitle": subtitle, "sections": sections, "data": data, "policy": policy}
    return str(rendered("page.html", **parts, styles=styles, scripts=scripts))


def bytes_left(title: str, subtitle: str, sections: Sequence[ReportSection]) -> int:
    """How many bytes another section may add to a page of these."""
    return MOST_BYTES - len(page_html(title, subtitle, sections).encode())


def asset(name: str) -> Markup:
    """The text of a style or script that this package holds, its own or a library's."""
    own = HERE / "assets" / name
    text = (own if own.is_file() else HERE / "vendor" / name).read_text(encoding="utf-8")
    if "</" in text and ("</script" in text.lower() or "</style" in text.lower()):
        raise ValueError(f"{name} would end the element that it stands in")
    return Markup(text)  # noqa: S704 - a file of this package


def _policy(styles: Iterable[str], scripts: Iterable[str], *, connects: bool) -> str:
    """Nothing from anywhere, but these styles and scripts."""
    allowed = {"style-src": map(_digest, styles), "script-src": map(_digest, scripts)}
    parts = ["default-src 'none'", *(f"{kind} {' '.join(digests)}" for kind, digests in allowed.items())]
    parts += ["img-src data:", "base-uri 'none'", "form-action 'none'", *(["connect-src 'self'"] if connects else [])]
    return "; ".join(parts)


def _digest(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def _once(*names: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(name for each in names for name in each))
