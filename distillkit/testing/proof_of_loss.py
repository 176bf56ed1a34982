"""`prove_loss`: does a loss do what it says that it minimises? The half without torch."""

from collections.abc import Iterator
from dataclasses import replace
from importlib.util import find_spec

from distillkit.errors import MissingExtraError
from distillkit.roles.capabilities import KNOWN_NEEDS, meant_by
from distillkit.roles.loss import Loss
from distillkit.testing.builders import require
from distillkit.testing.proof_result import Proof, ProofCheck, ProofResult

OF_SAMPLERS = frozenset({"topk", "entropy"})
"""The capabilities of samplers that tables have; of scorers they have `KNOWN_NEEDS`."""
WORST_FIRST: tuple[ProofResult, ...] = ("failed", "not claimed", "passed")


def prove_loss(loss: Loss) -> Proof:
    """Look at a loss's exact expected gradient, for a student and teachers small enough to enumerate.

    Student and teachers are tables: the next-token distribution of 6 tokens after every prefix of a completion of two.
    Every completion is sampled and scored as the loss needs it, made a batch by the engine, and weighed by how often
    the student samples it; all in float64. Where an option says how many ids the loss needs (K), each of 1 to 5 is
    looked at; where it takes several teachers, one and two.

    - The expected gradient is that of what the loss `minimises`, to 1e-6 of the length of the gradients that make it.
      What a loss makes of several teachers' top-K is no function of their mixture: there one teacher is looked at.
    - It is not zero, and another one for other teachers; for teachers equal to the student it is zero, unless the loss
      says that it minimises nothing. A loss that needs nothing of scorers (`needs` is empty) must not depend on them.
    - The loss of a position is the same in another order and in other chunks; what stands behind a mask changes
      nothing; a doubled weight doubles a token's gradient.

    What the function raises on its own is raised here.

    Raises:
        MissingExtraError: torch is not installed.
        PluginError: there is nothing to look at (`unprovable`).
    """
    why_not = unprovable(loss)
    require(why_not is None, loss, f"cannot be proven: {why_not}")
    if find_spec("torch") is None:
        raise MissingExtraError("proving a loss needs torch: pip install 'distillkit[local]'")
    from distillkit.testing.loss_proof.cases import cases_of, said_of_sizes
    from distillkit.testing.loss_proof.checks import checks_of

    made = [(case.label, list(checks_of(case))) for case in cases_of(loss)]
    return Proof(loss.name, tuple(label for label, _ in made), tuple(_merged(made)), said_of_sizes(loss))


def unprovable(loss: Loss) -> str | None:
    """Why a loss cannot be looked at: it has no code of its own, or needs what tables do not have."""
    if loss.token_loss() is None:
        return "it has no token_loss, and what a service computes cannot be looked at"
    own = sorted((loss.needs().keys() - KNOWN_NEEDS) | (loss.sampler_needs().keys() - OF_SAMPLERS))
    if not own:
        return None
    return f"it needs {' and '.join(own)}, and what that is, only its author knows{meant_by(loss.needs())}"


def _merged(made: list[tuple[str, list[ProofCheck]]]) -> Iterator[ProofCheck]:
    """Each check once: as it came out worst, in the first case where it did."""
    names = dict.fromkeys(check.name for _, checks in made for check in checks)
    for name in names:
        found = [(label, check) for label, checks in made for check in checks if check.name == name]
        label, check = min(found, key=lambda each: WORST_FIRST.index(each[1].result))
        if len(found) < len(made):
            which = _which([label for label, _ in found], [label for label, _ in made])
            check = replace(check, sentence=f"{check.sentence}; in {len(found)} of {len(made)} cases: {which}")
        alike = len(made) == 1 or (check.result != "failed" and len({each.result for _, each in found}) == 1)
        yield check if alike else replace(check, sentence=f"{label}: {check.sentence}")


def _which(labels: list[str], every: list[str]) -> str:
    """Some of the cases, by what only they have in common, or else one by one: `those with 1 teacher`."""
    parts = {label: set(label.split(", ")) for label in every}
    common = set.intersection(*(parts[label] for label in labels))
    alone = [label for label in every if common <= parts[label]] == labels
    return f"those with {', '.join(sorted(common))}" if common and alone else "; ".join(labels)
