"""Rows of the inspector's list."""

from typing import Any


def row_snippets(page: Any) -> list[str]:
    return page.locator(".completion .snippet").all_inner_texts()


def open_row(page: Any, text: str) -> None:
    page.fill("#inspector-search", text)
    page.locator(".completion").first.click()
