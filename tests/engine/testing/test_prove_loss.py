"""Losses that keep what they say pass, and each way of breaking it fails by name."""

import re
import time
from collections.abc import Mapping
from functools import partial

import pytest
from helpers import broken_losses as broken
from helpers import proved_losses as proved
from helpers.proved_losses import FullForward, TeacherTopK, reverse_kl, reverse_kl_at_teachers

from distillkit import Loss, NextTokenDivergence
from distillkit.errors import MissingExtraError, PluginError
from distillkit.testing import Proof, check_plugin, prove_loss
from distillkit_builtin.losses.importance_sampling import ImportanceSampling

CHECKS = (
    "loss of each position",
    "independent positions",
    "expected gradient",
    "teacher felt",
    "equal teacher",
    "another teacher",
    "masks",
    "weights",
)


def failures(proof: Proof) -> dict[str, str]:
    return {check.name: check.sentence for check in proof.failures}


@pytest.mark.parametrize(
    ("loss", "cases"),
    [
        (ImportanceSampling(), 2),
        (ImportanceSampling(scale=0.3), 2),
        (ImportanceSampling(advantage_clip=0.5), 2),
        (FullForward(), 2),
        (TeacherTopK(), 4),
        (proved.StudentTopK(k=3), 4),
        (proved.Sampled(), 2),
        (proved.EntropyAware(), 2),
        (proved.Constant(), 2),
    ],
    ids=lambda value: getattr(value, "name", ""),
)
def test_losses_that_keep_what_they_say_are_proven(loss: Loss, cases: int) -> None:
    proof = prove_loss(loss)
    assert not failures(proof)
    assert proof.passed
    assert tuple(check.name for check in proof.checks) == CHECKS
    assert len(proof.cases) == cases
    claims = {check.name for check in proof.checks if check.result == "passed"}
    assert ("expected gradient" in claims) == (loss.minimises() is not None)
    check_plugin(loss)


def test_a_loss_that_claims_nothing_may_pull_away_from_an_equal_teacher_and_it_is_said() -> None:
    proof = prove_loss(broken.SoftTeacher())
    assert proof.passed
    (check,) = (check for check in proof.checks if check.name == "equal teacher")
    assert check.result == "not claimed"
    assert "it pulls the student away from a teacher that it has reached" in check.sentence


def test_each_size_that_the_option_may_have_is_looked_at() -> None:
    assert prove_loss(TeacherTopK()).cases == tuple(f"k = {k}, 1 teacher" for k in (2, 3, 4, 5))
    assert prove_loss(TeacherTopK(k=3)).sizes.startswith("k runs from 2 to 5, whatever it is set to (here 3)")
    assert not prove_loss(FullForward()).sizes
    assert prove_loss(FullForward()).cases == ("1 teacher", "2 teachers")


CANCELS = "is zero .* cancel in expectation. What multiplies the logprob of a sampled token must depend on which token"

OTHERS = {"expected gradient": "cosine .*, ratio", "weights": "off where the weight of each completion's last token"}


@pytest.mark.parametrize(
    ("loss", "why"),
    [
        (
            broken.TopKAsReward(),
            {"expected gradient": f"k = 2, 1 teacher: {CANCELS}", "teacher felt": CANCELS, "another teacher": "apart"},
        ),
        (
            broken.GapBackPropagated(),
            {
                "expected gradient": CANCELS,
                "teacher felt": CANCELS,
                "another teacher": "apart: what it trains does not depend on them",
            },
        ),
        (
            broken.TopKRenormalized(),
            {
                "expected gradient": r"cosine .*, ratio .*It is that of the reverse KL over the teacher's 2 most "
                r"probable tokens alone, renormalized \(the mass outside of them, the tail, is left out"
            },
        ),
        (
            broken.variant(lambda positions, options: broken.forward(positions).sum()),
            {"loss of each position": r"a tensor of shape \[\] for 72 positions, not the loss of each"},
        ),
        (
            broken.variant(lambda positions, options: broken.forward(positions).sum() + 0 * broken.forward(positions)),
            OTHERS | {"independent positions": "is .* in a call with all 72 and .* in one with"},
        ),
        (
            broken.variant(lambda positions, options: broken.forward(positions) - broken.forward(positions).mean()),
            OTHERS | {"independent positions": "the loss of a position depends on others"},
        ),
        (
            broken.variant(broken.others_gradients),
            OTHERS
            | {"independent positions": "gradients are .* in other chunks: that of a position depends on others"},
        ),
        (
            broken.variant(lambda positions, options: -broken.forward(positions)),
            {"expected gradient": r"the other way \(cosine -1.000000, ratio 1\): .* the sign is wrong"},
        ),
        (
            broken.variant(lambda positions, options: 2 * broken.forward(positions)),
            {"expected gradient": r"is 2 times as long \(cosine 1.000000\): it minimises 2 times that"},
        ),
        (
            broken.variant(lambda positions, options: reverse_kl(positions.student, positions.teacher)),
            {"expected gradient": "It is that of the reverse KL$"},
        ),
        (
            broken.IgnoresTheTeacher(),
            {
                "expected gradient": "is not that of what it says it minimises: cosine",
                "equal teacher": "it pulls the student away from a teacher that it has reached",
                "another teacher": "0e[+]00 apart: what it trains does not depend on them",
            },
        ),
        (
            broken.variant(lambda positions, options: broken.forward(positions).mean().expand(len(positions.student))),
            OTHERS | {"independent positions": "the loss of a position depends on others"},
        ),
        (
            broken.WeightsDetached(),
            {
                "loss of each position": r"^1 teacher: its gradient is zero at every position \(\de-1\d long together, "
                r"which is rounding, where losses are \d.*Are its weights detached\?"
            },
        ),
        (broken.WeightsDetachedUnclaimed(), {"loss of each position": "gradient is zero at every position"}),
        (broken.ValueWithoutSize(), {"loss of each position": "where losses are 0.: nothing is trained"}),
        (broken.NoGradientUntaught(), {"loss of each position": "gradient is zero at every position"}),
        (broken.Unsaid(), {"loss of each position": "reads positions.student .* must have `distribution` in reads"}),
        (broken.Unsaid(what="teacher"), {"loss of each position": r"must have `full` in needs\(\)"}),
        (broken.Unsaid(what="entropy"), {"loss of each position": "must have `entropy` in reads"}),
        (broken.Unsaid(what="at"), {"loss of each position": "must have `at_ids` in reads"}),
        (broken.Unsaid(what="logprobs"), {"loss of each position": "must have `logprobs` in reads"}),
        (broken.ReadsATeacherUnsaid(), {"another teacher": "needs() is empty, and gradients .* say what it needs"}),
        (broken.Centred(), {"masks": "a token that was not sampled has an influence on others"}),
        (broken.TwiceTheMixture(), {"expected gradient": "^2 teachers: .* is 2 times as long"}),
        (
            broken.Ragged(),
            {"loss of each position": r"input 'wide' is \[1\] a token in one completion and \[2\] in another"},
        ),
        (broken.Infinite(), {"loss of each position": "loss or gradient is not finite"}),
        (broken.ClaimsOneNumber(), {"expected gradient": r"returns Tensor \[\] for 7 prefixes, not the divergence"}),
    ],
    ids=lambda value: getattr(value, "name", ""),
)
def test_a_loss_that_breaks_its_word_is_refused_with_the_reason(loss: Loss, why: Mapping[str, str]) -> None:
    found = failures(prove_loss(loss))
    assert found.keys() == why.keys(), found
    for name, pattern in why.items():
        assert re.search(pattern.replace("()", r"\(\)"), found[name]), (name, found[name])
    with pytest.raises(PluginError, match=r"does not do what it says|token_loss|positions|not finite|end to end"):
        check_plugin(loss)


def test_the_support_of_several_teachers_is_claimed_for_one_of_them() -> None:
    proof = prove_loss(proved.UnionTopK())
    assert not failures(proof)
    assert len(proof.cases) == 8
    (check,) = (check for check in proof.checks if check.name == "expected gradient")
    assert check.result == "passed"
    assert check.sentence.endswith("; in 4 of 8 cases: those with 1 teacher")


def test_what_changes_with_each_call_fails_where_a_second_call_is_made() -> None:
    assert failures(prove_loss(broken.Growing())).keys() >= {"weights", "masks"}


@pytest.mark.parametrize(
    ("loss", "why"),
    [
        (broken.Peculiar(), r"broken_losses.Peculiar \(loss\): cannot be proven: it needs hidden and parse_tree"),
        (broken.OfServices(), "cannot be proven: it has no token_loss"),
    ],
)
def test_what_cannot_be_looked_at_is_no_failure_and_no_proof(loss: Loss, why: str) -> None:
    with pytest.raises(PluginError, match=why):
        prove_loss(loss)


def test_what_the_function_raises_on_its_own_comes_with_its_traceback() -> None:
    with pytest.raises(KeyError) as caught:
        prove_loss(broken.variant(lambda positions, options: positions.inputs["advantages"]))
    assert any(note.startswith("raised by loss 'variant'") for note in caught.value.__notes__)


def test_a_loss_that_needs_more_ids_than_there_are_tokens_gets_more_tokens() -> None:
    class Nine(TeacherTopK):
        k: float = 9.0  # type: ignore[assignment]  # no number of ids that could be made smaller

        def needs(self) -> Mapping[str, int]:
            return {"sampled": 1, "topk": 9}

        def minimises(self) -> NextTokenDivergence | None:
            return partial(reverse_kl_at_teachers, k=9)

    proof = prove_loss(Nine())
    assert proof.passed, failures(proof)
    assert proof.cases == ("1 teacher",)


def test_a_proof_takes_well_under_a_second() -> None:
    prove_loss(TeacherTopK())
    times = []
    for _ in range(3):
        started = time.process_time()
        prove_loss(TeacherTopK())
        times.append(time.process_time() - started)
    assert min(times) < 1


def test_without_torch_the_kit_works_and_a_proof_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("distillkit.testing.proof_of_loss.find_spec", lambda name: None)
    monkeypatch.setattr("distillkit.testing.loss_contract.find_spec", lambda name: None)
    check_plugin(ImportanceSampling())
    with pytest.raises(MissingExtraError, match="pip install 'distillkit"):
        prove_loss(ImportanceSampling())
