"""Role `router`: which teacher scores a row."""

from abc import abstractmethod
from collections.abc import Sequence
from typing import ClassVar

from distillkit.roles.plugin import Plugin
from distillkit.types import Route, Row, Teacher


class Router(Plugin):
    """Decides which teacher scores a row. Pure: the same row always gets the same route."""

    role: ClassVar[str] = "router"

    def route_field(self) -> str | None:
        """The row field that names a row's teacher, and that `data.format.teacher` makes; None: no field does."""
        return None

    @abstractmethod
    def route(self, row: Row, teachers: Sequence[Teacher]) -> Route:
        """The teachers that score `row`, by name. Raise `RowError` if it has none; the engine adds file and line."""
