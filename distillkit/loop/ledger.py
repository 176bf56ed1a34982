"""What became of every row and every completion. One line a row-epoch in `ledger.jsonl`, and totals that add up."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Self

from pydantic import JsonValue

from distillkit.errors import RunFailedError
from distillkit.files.jsonl import JsonLines
from distillkit.files.redaction import redact
from distillkit.loop.outcomes import LostCompletion, Outcomes, RowKey, WindowRequests
from distillkit.run_directory.codec import from_json, to_json
from distillkit.types import SampleKey

KEPT_REASONS = 1000
"""Different reasons for failures that are counted; of more, only the more frequent half."""


@dataclass(slots=True)
class Totals:
    """Counts since the run began, over resumes too."""

    rows_admitted: int = 0
    rows_trained: int = 0
    rows_failed: int = 0
    rows_refused: int = 0
    """Of the failed ones: all of them because an optimizer step was refused, for which there is another limit."""
    completions: int = 0
    trained_completions: int = 0
    failed_completions: int = 0
    completion_tokens: int = 0
    rows_kept: int = 0
    """Sampled when the run ended, and held by its newest checkpoint: neither trained nor failed yet."""
    kept_completions: int = 0

    @property
    def rows_settled(self) -> int:
        """Rows whose end is in the ledger."""
        return self.rows_trained + self.rows_failed

    def to_save(self) -> dict[str, JsonValue]:
        """As JSON, for checkpoints; rows that are in flight or kept are admitted again by whoever goes on."""
        return {**to_json(self), "rows_admitted": self.rows_settled}

    @classmethod
    def restored(cls, state: Mapping[str, JsonValue]) -> "Totals":
        """The totals that `to_save` returned as `state`."""
        return from_json(cls, state)


class Ledger:
    """Counts rows in and out, and writes down how each ended."""

    def __init__(self, path: Path, max_failed_fraction: float) -> None:
        """Append to the file at `path`; `max_failed_fraction` is the share of settled rows that may have failed."""
        self.totals = Totals()
        self._file = JsonLines(path)
        self._max_failed_fraction = max_failed_fraction
        self._reasons: Counter[str] = Counter()

    def admit(self, requests: WindowRequests) -> None:
        """Count rows that come in; each has to be settled."""
        self.totals.rows_admitted += len(requests.prompts)

    def settle(self, step: int, requests: WindowRequests, outcomes: Outcomes) -> None:
        """Enter the end of every row of a step that was just trained."""
        lost = {loss.key: loss for loss in outcomes.lost}
        tokens = {scored.key: len(scored.rollout.token_ids) for scored in outcomes.scored}
        entries: list[dict[str, JsonValue]] = []
        for row, keys in _keys_of(requests).items():
            trained = [key for key in keys if key in tokens]
            completions = [_completion(key.sample, tokens.get(key), lost.get(key)) for key in keys]
            entries.append(_entry(step, requests, row, "trained" if trained else "failed", completions))
            refused = not trained and all(lost[key].stage == "train" for key in keys)
            self._count(len(keys), trained=len(trained), tokens=sum(tokens[key] for key in trained), refused=refused)
        self._file.append(entries)
        self._reasons.update(loss.reason for loss in outcomes.lost)
        if len(self._reasons) > KEPT_REASONS:  # those that name a row, each of which comes once
            self._reasons = Counter(dict(self._reasons.most_common(KEPT_REASONS // 2)))

    def lengths(self) -> dict[str, int]:
        """How long, in bytes, the file is."""
        return {self._file.path.name: self._file.length()}

    def flush(self) -> None:
        """Return once all of the file is on the disk."""
        self._file.flush()

    def rewind(self, lengths: Mapping[str, int]) -> None:
        """Forget the entries since it had this length: a resumed run trains them again."""
        self._file.cut(lengths[self._file.path.name])

    def keep(self, step: int, requests: WindowRequests) -> None:
        """Enter rows whose completions the newest checkpoint holds when the run ends: a resume trains them."""
        entries: list[dict[str, JsonValue]] = []
        for row, keys in _keys_of(requests).items():
            completions: list[dict[str, JsonValue]] = [{"sample": key.sample, "outcome": "kept"} for key in keys]
            entries.append(_entry(step, requests, row, "kept", completions))
            self.totals.rows_kept += 1
            self.totals.completions += len(keys)
            self.totals.kept_completions += len(keys)
        self._file.append(entries)

    def _count(self, completions: int, *, trained: int, tokens: int, refused: bool) -> None:
        totals = self.totals
        totals.rows_refused += refused
        totals.rows_trained += bool(trained)
        totals.rows_failed += not trained
        totals.completions += completions
        totals.trained_completions += trained
        totals.failed_completions += completions - trained
        totals.completion_tokens += tokens

    def require_few_failures(self, requests: WindowRequests, outcomes: Outcomes) -> None:
        """Raise RunFailedError if more rows than `train.max_failed_fraction` have failed, counting a window's in.

        The window is not settled yet, nor trained: what is left of it when a teacher dies must not move the weights.
        """
        totals, alive = self.totals, {(scored.key.row_id, scored.key.epoch) for scored in outcomes.scored}
        failed = totals.rows_failed - totals.rows_refused + len(requests.prompts.keys() - alive)
        rows = totals.rows_settled + len(requests.prompts)
        if failed > self._max_failed_fraction * rows:
            self._reasons.update(loss.reason for loss in outcomes.lost)
            raise RunFailedError(
                f"{failed} of {rows} rows failed, more than "
                f"train.max_failed_fraction={self._max_failed_fraction:g} allows{self.reasons()}"
            )

    def reasons(self) -> str:
        """The most frequent reasons for failures, as the end of a sentence."""
        if not self._reasons:
            return ""
        return "; reasons: " + "; ".join(f"{reason} ({count}x)" for reason, count in self._reasons.most_common(3))

    def require_balance(self) -> None:
        """Raise unless everything that came in went out, and something was trained."""
        totals = self.totals
        if totals.rows_settled != totals.rows_admitted:
            raise RunFailedError(f"the ledger does not add up: {totals}; please report this")
        if totals.trained_completions == 0:
            raise RunFailedError(f"nothing was trained: all {totals.completions} completions failed{self.reasons()}")

    def __enter__(self) -> Self:
        """Return this object."""
        return self

    def __exit__(self, *failure: object) -> None:
        """Close the file."""
        self._file.close()


def _keys_of(requests: WindowRequests) -> dict[RowKey, list[SampleKey]]:
    """Each row's completions, in data order."""
    keys: dict[RowKey, list[SampleKey]] = {row: [] for row in requests.prompts}
    for request in requests.samples:
        keys[request.key.row_id, request.key.epoch].append(request.key)
    return keys


def _entry(
    step: int,
    requests: WindowRequests,
    row: RowKey,
    outcome: Literal["trained", "failed", "kept"],
    completions: Sequence[dict[str, JsonValue]],
) -> dict[str, JsonValue]:
    return {
        "step": step,
        "row_id": row[0],
        "epoch": row[1],
        "route": requests.prompts[row].route.label,
        "outcome": outcome,
        "completions": [*completions],
    }


def _completion(sample: int, tokens: int | None, lost: LostCompletion | None) -> dict[str, JsonValue]:
    if lost is None:
        return {"sample": sample, "outcome": "trained", "tokens": tokens}
    reason = redact(lost.reason)  # in a plugin's words, and a service's
    entry: dict[str, JsonValue] = {"sample": sample, "outcome": "failed", "stage": lost.stage, "reason": reason}
    return entry | {"retryable": lost.retryable} | ({"teacher": lost.teacher} if lost.teacher else {})


def failed_by_teacher(lost: Sequence[LostCompletion]) -> dict[str, int]:
    """How many completions each teacher failed to score."""
    return dict(Counter(loss.teacher for loss in lost if loss.teacher is not None))
