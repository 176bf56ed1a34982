"""Scores of a scorer as a run gets them, for the tests that hold servers against the local backend."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from distillkit.arrays import token_ids
from distillkit.records import Rollout, Score, ScoreRequest
from distillkit.roles.scorer import Scorer
from distillkit.testing import make_context, make_rollout
from distillkit.types import Message, SampleKey, SampleRequest, SamplingParams, Teacher
from distillkit_builtin.hf_tokenizer import HFTokenizer
from distillkit_builtin.http.scorer import HttpScorer
from distillkit_builtin.local.scorer import LocalScorer

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


async def require_local_scores(url: str, model: Path, dialect: str) -> None:
    """Scores and top-K of the server at `url` are those of the local backend."""
    requests = requests_of(model, topk=3)
    remote = HttpScorer(base_url=url, dialect=dialect)  # type: ignore[arg-type]
    theirs = await scores(remote.bind(Teacher("smol", "smol", tokenizer_model=str(model))), requests)
    local = LocalScorer(device="cpu", dtype="float32").bind(Teacher("smol", str(model)))
    ours = await scores(local, requests)
    for mine, other in zip(ours, theirs, strict=True):
        assert other.ids_proved
        np.testing.assert_allclose(other.logprobs, mine.logprobs, atol=FLOAT32)
        best = other.arrays["topk_logprobs"]
        assert best.shape == (len(mine.logprobs), 3)
        assert np.all(np.diff(best, axis=1) <= 0)
        assert np.all(best[:, 0] >= other.logprobs)
        np.testing.assert_allclose(best, mine.arrays["topk_logprobs"], atol=FLOAT32)


async def require_stops(url: str, model: Path) -> None:
    """Stop ids and stop strings end completions of the server at `url`, and stay in them."""
    tokenizer = HFTokenizer.load(str(model))
    prompt = token_ids(tokenizer.render([Message("user", PROMPTS[0])], {}))
    scorer = HttpScorer(base_url=url).bind(Teacher("smol", "smol", tokenizer_model=str(model)))
    run = make_context(teachers=[scorer.teacher])
    scorer.check(run)
    run = replace(run, tokenizer=scorer.tokenizer(run))  # a student that reads the same ids, which the top-K are of
    await scorer.open(run)

    async def greedy(**params: Any) -> Rollout:
        sampling = SamplingParams(**{"max_tokens": 12, "temperature": 0.0, **params})
        (found,) = [one async for one in scorer.sample([SampleRequest(SampleKey("1-a", 0, 0), prompt, 7, sampling)])]
        assert isinstance(found, Rollout), found
        return found

    try:
        free = await greedy()
        ids = free.token_ids.tolist()
        ends = {at: tokenizer.decode(ids[: at + 1]) for at in range(3, 12) if ids[at] not in ids[:at]}
        at, text = next((at, text) for at, text in ends.items() if text.index(text[-6:]) == len(text) - 6)
        own = tokenizer.special_tokens()["<|im_end|>"]
        for params in (
            {"stop_ids": (own, ids[at])},
            {"stop_ids": (ids[at],), "max_tokens": at + 1},
            {"stop": (text[-6:],)},
            {"stop": (text[-6:],), "max_tokens": at + 1},
        ):
            cut = await greedy(**params)
            assert cut.token_ids.tolist() == ids[: at + 1]
            assert (cut.finish_reason, cut.text) == ("stop", text)
            np.testing.assert_allclose(cut.logprobs, free.logprobs[: at + 1], atol=FLOAT32)
        assert (await greedy(max_tokens=at + 1)).finish_reason == "length"
    finally:
        await scorer.close()
        await run.shared.release(run.user)
