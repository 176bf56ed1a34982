"""Routers: which teachers score a row. `field` and `single` return exactly one (routed MOPD does not blend)."""

from collections.abc import Sequence
from typing import ClassVar

from pydantic import Field

from distillkit import InputError, Route, Router, Row, RowError, Teacher, suggest


class FieldRouter(Router):
    """The teacher whose `route_value` a field of the row names."""

    name: ClassVar[str] = "field"

    route_key: str = Field("teacher", min_length=1, description="The row field that names the teacher.")

    def route_field(self) -> str:
        """`route_key`."""
        return self.route_key

    def route(self, row: Row, teachers: Sequence[Teacher]) -> Route:
        """The named teacher. Raises RowError where the field is absent, no string, or names no teacher."""
        key = self.route_key
        if key not in row.fields:
            alone = "With one teacher, take `router: single`. " if len(teachers) == 1 else ""
            message = f"is missing; the router needs it. {alone}{_known(teachers)}"
            raise RowError(key, message, _other_column(row, teachers))
        value = row.fields[key]
        if not isinstance(value, str):
            raise RowError(key, f"is {value!r}, not a string. {_known(teachers)}")
        if value not in _names(teachers):
            raise RowError(key, f"no teacher has the route value {value!r}; {suggest(value, _names(teachers))}")
        return Route.to(value)


class SingleRouter(Router):
    """The run's only teacher, for every row."""

    name: ClassVar[str] = "single"

    def route(self, row: Row, teachers: Sequence[Teacher]) -> Route:
        """The one teacher. Raises InputError if there are more."""
        if len(teachers) != 1:
            raise InputError(f"router: `single` is for one teacher and there are {len(teachers)}; use `router: field`")
        return Route.to(teachers[0].name)


class AllRouter(Router):
    """Every teacher, for every row, weighted as the config weighs them; losses blend them into one mixture."""

    name: ClassVar[str] = "all"

    def route(self, row: Row, teachers: Sequence[Teacher]) -> Route:
        """All teachers with their weights."""
        return Route({teacher.name: teacher.weight for teacher in teachers})


def _other_column(row: Row, teachers: Sequence[Teacher]) -> str:
    """How a column that names one of the teachers is chosen, if there is one."""
    names = _names(teachers)
    found = next((column for column, value in row.fields.items() if value in names), None)
    return "" if found is None else f"router.route_key={found}, a column that names teachers"


def _names(teachers: Sequence[Teacher]) -> list[str]:
    return [teacher.name for teacher in teachers]


def _known(teachers: Sequence[Teacher]) -> str:
    return f"Known: {', '.join(_names(teachers))}"
