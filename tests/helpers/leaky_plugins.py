"""Plugins for `-p` that say what they must not: every secret that their environment holds, in every way there is."""

import logging
import os
from collections.abc import AsyncIterator, Sequence
from typing import ClassVar, Literal
from urllib.parse import urlsplit

from pydantic import Field

from distillkit import Sink, hookimpl
from distillkit.context import RunContext
from distillkit.errors import DistillkitError
from distillkit.events import Event, StepFinished
from distillkit.files.redaction import keep_secret
from distillkit.records import Failure, Score, ScoreRequest
from distillkit.roles.plugin import CheckReport
from distillkit.roles.scorer import Scorer
from distillkit.roles.student import Student
from distillkit.testing import ByteTokenizer, FakeScorer, FakeStudent
from distillkit.tokenizer import Tokenizer
from distillkit.training_data import Batch, StepResult
from distillkit_builtin.http.scorer import HttpScorer
from helpers.secret_markers import SECRETS


def everything() -> str:
    """All of it in one sentence, as a careless library would have it in an exception."""
    keep_secret("TEACHER_LOGIN")  # as whatever reads a key from a variable that the config names does
    proxy = os.environ["HTTP_PROXY"]
    known = [os.environ[name] for name in SECRETS if name in os.environ]
    user = urlsplit(proxy).username
    return f"cannot go on with {', '.join(known)} through {proxy} as {user}"


class LeakyStudent(FakeStudent):
    """Tells its secrets at a moment that its option chooses."""

    name: ClassVar[str] = "leaky"

    how: Literal["error", "distillkit", "interrupt", "open", "no"] = Field("no", description="By what exception.")
    after: int = Field(1, description="So many steps are trained before.")

    async def open(self, run: RunContext) -> None:
        """Notices, and logs at every level."""
        if self.how == "open":
            raise ValueError(everything())
        run.notify(everything())
        for level in (logging.DEBUG, logging.WARNING):
            logging.getLogger("distillkit.leaky").log(level, "%s", everything())

    async def train(self, batch: Batch) -> StepResult:
        """Fail, or not."""
        if self._version >= self.after and self.how != "no":
            kinds = {"error": RuntimeError, "distillkit": DistillkitError, "interrupt": KeyboardInterrupt}
            try:
                raise OSError(everything())
            except OSError as error:
                failure = kinds[self.how](everything())
                failure.add_note(everything())
                raise failure from error
        return await super().train(batch)


class LeakyScorer(FakeScorer):
    """Fails one completion in so many, with a reason that says too much."""

    name: ClassVar[str] = "leaky"

    every: int = Field(7, description="The period.")

    def check(self, run: RunContext) -> CheckReport:
        """Says too much, too."""
        run.notify(everything())
        return CheckReport()

    async def score(self, requests: Sequence[ScoreRequest]) -> AsyncIterator[Score | Failure]:
        """As the fake does."""
        async for score in super().score(requests):
            if len(self._seen) % self.every:
                yield score
            else:
                yield Failure(score.request, everything(), retryable=False)


class LeakySink(Sink):
    """Raises at every step."""

    name: ClassVar[str] = "leaky"

    def emit(self, event: Event) -> None:
        """Not a word to anybody else."""
        if isinstance(event, StepFinished):
            raise RuntimeError(everything())


class ByteScorer(HttpScorer):
    """Scorer `http` for the fake student, whose tokens are bytes."""

    name: ClassVar[str] = "http_bytes"

    def tokenizer(self, run: RunContext) -> Tokenizer:
        """The student's."""
        return run.share("byte tokenizer", ByteTokenizer)


@hookimpl
def distillkit_students() -> Sequence[type[Student]]:
    return [FakeStudent, LeakyStudent]


@hookimpl
def distillkit_scorers() -> Sequence[type[Scorer]]:
    return [FakeScorer, LeakyScorer, ByteScorer]


@hookimpl
def distillkit_sinks() -> Sequence[type[Sink]]:
    return [LeakySink]
