"""Modules of plugins."""

from collections.abc import Sequence
from types import ModuleType
from typing import ClassVar

from pydantic import Field

from distillkit import Router
from distillkit.types import Route, Row, Teacher


class FirstRouter(Router):
    """Always the first."""

    name: ClassVar[str] = "first"

    offset: int = Field(0, ge=0, description="Which is the first.")

    def route(self, row: Row, teachers: Sequence[Teacher]) -> Route:
        return Route.to(teachers[self.offset].name)


def module_with(**members: object) -> ModuleType:
    module = ModuleType("strangers_plugins")
    for name, member in members.items():
        setattr(module, name, member)
    return module
