"""The sizes of support and the numbers of teachers with which a loss is looked at."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

from pydantic import ValidationError

from distillkit.roles.loss import Loss
from distillkit.testing.loss_proof.exact_batch import ExactBatch, Outcome
from distillkit.testing.loss_proof.tables import Policies, random_table

VOCABULARY = 6
"""Tokens that there are; more where a loss needs so many ids that none would be left over."""


@dataclass(frozen=True, eq=False)
class LossCase:
    """A loss with a student and teachers."""

    label: str
    """`k = 3, 2 teachers`."""
    loss: Loss
    teachers: int

    @property
    def k(self) -> int:
        """How many ids a position the loss needs, of whichever side; 0: none."""
        return ids_needed(self.loss)

    @cached_property
    def policies(self) -> Policies:
        """A student, and teachers unlike it."""
        size = max(VOCABULARY, self.k + 1)
        return Policies(random_table(0, size), tuple(random_table(1 + each, size) for each in range(self.teachers)))

    @property
    def other(self) -> Policies:
        """The same student with other teachers."""
        student = self.policies.student
        return Policies(student, tuple(random_table(11 + each, len(student) - 1) for each in range(self.teachers)))

    @property
    def equal(self) -> Policies:
        """The same student, which is its own teacher."""
        return Policies(self.policies.student, (self.policies.student,) * self.teachers)

    @cached_property
    def batch(self) -> ExactBatch:
        """Every completion. Raises PluginError for a loss that makes no batch that could be trained."""
        return ExactBatch.of(self.loss, self.policies)

    @cached_property
    def outcome(self) -> Outcome:
        """What the loss makes of `batch`, all positions in one call."""
        return self.batch.run()


def cases_of(loss: Loss) -> list[LossCase]:
    """Each size with each number of teachers."""
    counts = (1,) if loss.max_teachers() == 1 else (1, 2)
    return [
        LossCase(", ".join(filter(None, [size, f"{count} teachers" if count > 1 else "1 teacher"])), sized, count)
        for size, sized in _sizes(loss)
        for count in counts
    ]


def ids_needed(loss: Loss) -> int:
    """The most ids a position that a loss needs of scorers or of the sampler."""
    needs, sampler = loss.needs(), loss.sampler_needs()
    return max(needs.get("topk", 0), needs.get("at_ids", 0), sampler.get("topk", 0))


def said_of_sizes(loss: Loss) -> str:
    """Which sizes stand in for the one that an option sets, and why; empty where none does."""
    option, found = _sized(loss)
    if option is None:
        return ""
    sizes = [k for k, _ in found]
    return (
        f"{option} runs from {sizes[0]} to {sizes[-1]}, whatever it is set to (here {getattr(loss, option)}): "
        f"the vocabulary is {VOCABULARY} tokens"
    )


def _sizes(loss: Loss) -> list[tuple[str, Loss]]:
    """The loss at K of 1 to 5, where an option of it says how many ids it needs; else as it is."""
    option, found = _sized(loss)
    return [(f"{option} = {k}", made) for k, made in found] if option else [("", loss)]


def _sized(loss: Loss) -> tuple[str | None, list[tuple[int, Loss]]]:
    """The option that says how many ids the loss needs, and the loss at each size; None where there is none."""
    for name in type(loss).model_fields if ids_needed(loss) else ():
        found = [(k, made) for k, made in _with_sizes(loss, name) if ids_needed(made) == k]
        if found:
            return name, found
    return None, []


def _with_sizes(loss: Loss, option: str) -> Iterator[tuple[int, Loss]]:
    """The loss with each size that the option may have."""
    if type(getattr(loss, option)) is not int:
        return
    given = {name: getattr(loss, name) for name in loss.model_fields_set}
    for k in range(1, VOCABULARY):
        try:
            made = type(loss).model_validate({**given, option: k})
        except ValidationError:  # smaller or larger than it may be
            continue
        yield k, made
