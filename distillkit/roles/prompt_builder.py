"""Role `prompt_builder`: what student and teachers each read."""

from abc import abstractmethod
from collections.abc import Sequence
from typing import ClassVar

from distillkit.roles.plugin import Plugin
from distillkit.types import ChatPrompts, Route, Row, Teacher


class PromptBuilder(Plugin):
    """Decides which messages student and teachers each read, and the row's own template options. Pure.

    `parse_messages` and `parse_template_options` read what rows hold in the usual forms.
    """

    role: ClassVar[str] = "prompt_builder"

    @abstractmethod
    def build(self, row: Row, route: Route, teachers: Sequence[Teacher]) -> ChatPrompts:
        """The messages for the student and for each teacher of the route. Raise `RowError` for a row without them."""
