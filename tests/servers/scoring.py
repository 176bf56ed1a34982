"""Scores of a scorer as a run gets them, for the tests that hold servers against the local backend."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from distillkit.arrays import token_ids
from distillkit.records import Score, ScoreRequest
from distillkit.roles.scorer import Scorer
from distillkit.testing import make_context, make_rollout
from distillkit.types import Message
from distillkit_builtin.hf_tokenizer import HFTokenizer

FLOAT32 = 5e-4
"""Nats: float32 on both sides, other kernels. Measured: 5e-5 at most over these texts."""
ANSWERS = ["The sky is blue.", "Because air scatters short waves more than long ones.\n\n1. Air\n2. Light", "no"]
PROMPTS = ["Why is the sky blue?", "Answer as a list of two. " * 20 + "Why?"]


def requests_of(model: Path, topk: int = 0) -> list[ScoreRequest]:
    """Each answer to each prompt, in the model's own tokens."""
    tokenizer = HFTokenizer.load(str(model))
    prompts = [token_ids(tokenizer.render([Message("user", text)], {})) for text in PROMPTS]
    answers = [tokenizer.encode(text) for text in ANSWERS]
    return [
        ScoreRequest(make_rollout(answer, sample=len(answers) * i + j), "smol", prompt, topk=topk)
        for i, prompt in enumerate(prompts)
        for j, answer in enumerate(answers)
    ]


async def scores(scorer: Scorer, requests: Sequence[ScoreRequest]) -> list[Score]:
    """In the order of the requests' keys; a request that fails is an error."""
    run = make_context(teachers=[scorer.teacher])
    scorer.check(run)
    run = replace(run, tokenizer=scorer.tokenizer(run))  # a student that reads the same ids, which the top-K are of
    await scorer.open(run)
    try:
        found = [outcome async for outcome in scorer.score(requests)]
    finally:
        await scorer.close()
        await run.shared.release(run.user)
    assert all(isinstance(outcome, Score) for outcome in found), found
    return sorted((outcome for outcome in found if isinstance(outcome, Score)), key=lambda score: score.request.key)
