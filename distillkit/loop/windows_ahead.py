"""The windows of the steps to come: with k steps off policy, k of them are in flight while a step trains."""

import logging
from collections import Counter, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial

from distillkit.errors import RunFailedError
from distillkit.loop.batches import Prefetcher, RowBatches
from distillkit.loop.ledger import Ledger
from distillkit.loop.outcomes import Outcomes, WindowRequests
from distillkit.loop.policy_sync import PolicySync
from distillkit.loop.window import AnyWindow, KeptWindow, Scheduler, Window, sampled_or_failed
from distillkit.preflight.prepared_run import PreparedRun
from distillkit.run_directory.rollout_codec import InFlight, take_window
from distillkit.types import Prompts

log = logging.getLogger("distillkit")


@dataclass(slots=True)
class WindowsAhead:
    """Starts windows in the order of their steps, and gives every admitted row an end in the ledger."""

    prepared: PreparedRun
    scheduler: Scheduler
    policy: PolicySync
    ledger: Ledger
    warn: Callable[[str], None]
    kept: list[InFlight] = field(default_factory=list)
    """Windows that the checkpoint held, in order: they came to their end before the run was resumed."""
    in_flight: deque[AnyWindow] = field(default_factory=deque, init=False)
    """The windows that were started and not yet trained, in order."""
    _checkpointed: Sequence[AnyWindow] = field(default=(), init=False)
    """Windows that the newest checkpoint of this process holds."""
    _batches: RowBatches = field(init=False)
    _prefetcher: Prefetcher = field(init=False)

    def open(self, first_step: int, rows_done: int) -> None:
        """Begin at the rows of `first_step` (counted from 1), behind the `rows_done` that are settled."""
        self._batches = RowBatches(self.prepared)
        self._prefetcher = Prefetcher(self.prepared.render, self._batches.groups(first_step, rows_done))

    async def next(self) -> AnyWindow | None:
        """The window to train next, with as many started behind it as may be; None after the last step."""
        ahead = 1 + self.prepared.config.train.max_steps_off_policy
        while len(self.in_flight) < ahead and (prompts := await self._prefetcher.take()) is not None:
            self.in_flight.append(self._start(prompts))
        self._prefetcher.prepare()
        return self.in_flight[0] if self.in_flight else None

    def _start(self, prompts: Sequence[Prompts]) -> AnyWindow:
        """Sample and score a step's rows, unless the checkpoint holds what came of that."""
        window: AnyWindow | None = take_window(self.kept, partial(self._batches.requests, prompts), self.warn)
        if window is None:
            window = self.scheduler.start(self._batches.requests(prompts, self.policy.version))
        elif isinstance(window, KeptWindow) and window.to_score:
            window = self.scheduler.rescore(window.requests, window.to_score)
        self.ledger.admit(window.requests)
        return window

    async def outcomes(self, window: AnyWindow, step: int) -> Outcomes:
        """What became of a window; one of which nothing at all is left, and might be, is tried once more.

        Raises:
            RunFailedError: if nothing is left then either, and might be: a server that is down would cost row after
                row, and a resume does the step again. Not if all rows may fail.
        """
        outcomes = await window.finished()
        again = self._once_more(window.requests, outcomes) if _might_be_had(outcomes) else None
        if again is None:
            return outcomes
        failed = f"step {step}: all {len(outcomes.lost)} completions failed"
        self.warn(f"{failed}, and are tried once more: {_main_reason(outcomes)}")
        outcomes = await again.finished()
        if _might_be_had(outcomes) and self.prepared.config.train.max_failed_fraction < 1:
            raise RunFailedError(
                f"step {step}: all {len(outcomes.lost)} completions failed, also when tried once more (with "
                f"train.max_failed_fraction=1 the run goes on without them): {_main_reason(outcomes)}"
            )
        return outcomes

    def _once_more(self, requests: WindowRequests, outcomes: Outcomes) -> Window | None:
        """The window from its start; of a policy that is gone what it sampled, if teachers are still what they were."""
        if requests.policy_version in (None, self.policy.version):
            return self.scheduler.start(requests)
        if not outcomes.rollouts or any(scorer.moves() for scorer in self.scheduler.scorers.values()):
            return None
        return self.scheduler.rescore(requests, sampled_or_failed(requests, outcomes))

    def trained(self, window: AnyWindow, step: int, outcomes: Outcomes) -> None:
        """Enter the end of every row of the first window, which was just trained as `step`."""
        self.ledger.settle(step, window.requests, outcomes)
        self.in_flight.popleft()

    async def saved(self) -> list[InFlight]:
        """What a checkpoint holds of the windows in flight, once all of them have come to their end.

        And of those that the last checkpoint held and that did not begin yet: a resumed run may save before it trains.
        """
        saved = [InFlight.of(window.requests, await window.finished()) for window in self.in_flight]
        self._checkpointed = tuple(self.in_flight)
        return [*saved, *self.kept]

    def rescued(self, step: int) -> list[InFlight] | None:
        """What a checkpoint of `step` is to hold where the run has failed since; None where that cannot be had again.

        What policy `step` samples is sampled again as it was. An older policy is gone, so what it sampled is kept; that
        is scored again, since a score may be why the run fails, but by teachers that have moved since.
        """
        saved: list[InFlight] = []
        moved = any(scorer.moves() for scorer in self.scheduler.scorers.values())
        for window in self.in_flight:
            if window.requests.policy_version == step:
                break
            outcomes = window.result() if moved else window.sampled()
            if outcomes is None:
                return None
            saved.append(InFlight.of(window.requests, outcomes))
        self._checkpointed = tuple(self.in_flight)[: len(saved)]
        return [*saved, *self.kept]

    async def close(self, next_step: int, ended: str) -> None:
        """Stop what is in flight, and enter its rows with the reason for which the run ended: none disappears."""
        for step, window in enumerate(self.in_flight, start=next_step):
            outcomes = await window.abandon(f"the run ended: {ended}")
            if isinstance(window, KeptWindow) or window in self._checkpointed:
                self.ledger.keep(step, window.requests)
            else:
                self.ledger.settle(step, window.requests, outcomes)
        self.in_flight.clear()
        await self._prefetcher.close()


def _might_be_had(outcomes: Outcomes) -> bool:
    """Whether nothing is left of a window, for a reason that may pass."""
    return not outcomes.scored and any(lost.retryable for lost in outcomes.lost)


def _main_reason(outcomes: Outcomes) -> str:
    """A reason of the kind that most of the completions were lost for: at one stage, by one teacher."""
    lost = [each for each in outcomes.lost if each.retryable]
    ((most, _),) = Counter((each.stage, each.teacher) for each in lost).most_common(1)
    return next(each.reason for each in lost if (each.stage, each.teacher) == most)
