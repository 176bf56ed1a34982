"""What plugin authors test with: fakes without torch, values ready made, and `check_plugin`. Needs no pytest."""

from distillkit.testing.builders import (
    TEST_PLAN,
    make_context,
    make_request,
    make_rollout,
    make_row,
    make_scored,
    make_teacher,
)
from distillkit.testing.byte_tokenizer import ByteTokenizer
from distillkit.testing.contract import check_plugin
from distillkit.testing.eval_context import FakeEvalContext
from distillkit.testing.fakes import FakeScorer, FakeStudent, ListSink
from distillkit.testing.proof_of_loss import prove_loss
from distillkit.testing.proof_result import Proof, ProofCheck, ProofResult
from distillkit.testing.synthetic_batches import complete_batch, make_scored_rollouts

__all__ = [
    "TEST_PLAN",
    "ByteTokenizer",
    "FakeEvalContext",
    "FakeScorer",
    "FakeStudent",
    "ListSink",
    "Proof",
    "ProofCheck",
    "ProofResult",
    "check_plugin",
    "complete_batch",
    "make_context",
    "make_request",
    "make_rollout",
    "make_row",
    "make_scored",
    "make_scored_rollouts",
    "make_teacher",
    "prove_loss",
]
