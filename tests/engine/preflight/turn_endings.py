"""Plugins whose turns end as a test says."""

from collections.abc import Mapping, Sequence
from typing import ClassVar

from pydantic import JsonValue

from distillkit import Registry, RunConfig
from distillkit.context import RunContext
from distillkit.preflight.prepared_run import PreparedRun, prepare_run
from distillkit.testing import ByteTokenizer, FakeScorer, FakeStudent
from distillkit.tokenizer import Tokenizer, TurnEnds

START, END, EXTRA = 256, 257, 258
Ends = tuple[int | None, tuple[int, ...]]


class EndsOtherwise(ByteTokenizer):
    """Its turns end as it is told."""

    def __init__(self, ends: Ends, more: Mapping[str, int]) -> None:
        self.ends, self.more = TurnEnds(*ends), more

    def special_tokens(self) -> Mapping[str, int]:
        return {**super().special_tokens(), **self.more}

    def show(self, ids: Sequence[int]) -> str:
        names = {index: token for token, index in self.special_tokens().items()}
        return "".join(names.get(index) or chr(index) for index in ids)

    def turn_ends(self, options: Mapping[str, JsonValue]) -> TurnEnds:
        return self.ends


class Ending(FakeStudent):
    name: ClassVar[str] = "ending"

    ends: Ends = (END, (END,))

    def tokenizer(self, run: RunContext) -> Tokenizer:
        return EndsOtherwise(self.ends, {})


class EndingScorer(FakeScorer):
    name: ClassVar[str] = "ending"

    ends: Ends = (END, (END,))
    more: Mapping[str, int] = {}

    def tokenizer(self, run: RunContext) -> Tokenizer:
        return EndsOtherwise(self.ends, self.more)


def inspect(config: RunConfig) -> PreparedRun:
    return prepare_run(config, Registry.discover(), lambda message: None)
