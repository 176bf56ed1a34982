"""Routing by a word in the question."""

from collections.abc import Sequence
from typing import ClassVar

from pydantic import Field

from distillkit import Route, Router, Row, Teacher


class KeywordRouter(Router):
    """Rows with the keyword go to the last teacher, all others to the first."""

    name: ClassVar[str] = "keyword"

    keyword: str = Field("rain", min_length=1, description="The word that decides.")

    def route(self, row: Row, teachers: Sequence[Teacher]) -> Route:
        """By the last message."""
        has_it = self.keyword in row.messages[-1].content
        return Route.to(teachers[-1 if has_it else 0].name)
