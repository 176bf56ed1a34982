"""A completion as a line of `samples.jsonl`: its text token by token, and what is known of each.

Numbers are rounded, and what a run does not have is left out, so that the file stays small. `R` is the number of the
completion's tokens; lists of that length are joined to `tokens` by position.
"""

import math
from collections.abc import Mapping, Sequence
from itertools import pairwise

import numpy as np
from pydantic import JsonValue

from distillkit.arrays import Array
from distillkit.metrics import finite
from distillkit.records import ScoredRollout
from distillkit.tokenizer import Tokenizer
from distillkit.training_data import Datum

DECIMALS = 5
TOPK_DECIMALS = 3
TOPK_LEAST = 0.001
"""The least probability of a token that could have stood in the place of the most probable one, and is kept."""
CHARACTER_BYTES = 4
"""The most bytes, and so tokens, of one character in UTF-8."""
PART = "\ufffd"


def sample_record(
    completion: ScoredRollout, tokenizer: Tokenizer, topk: int, datum: Datum | None = None
) -> dict[str, JsonValue]:
    """A completion as `samples.jsonl` holds it; `datum`: as it is trained on, None at evaluations.

    `topk`: how many of the most probable tokens are kept at each position, where the run has them.
    """
    rollout = completion.rollout
    return {
        "row_id": completion.key.row_id,
        "epoch": completion.key.epoch,
        "sample": completion.key.sample,
        "route": completion.prompts.route.label,
        "policy_version": rollout.policy_version,
        "question": completion.prompts.row.messages[-1].content,
        "prompt": tokenizer.show(rollout.request.prompt_ids.tolist()),
        "teacher_prompts": {name: tokenizer.show(ids.tolist()) for name, ids in completion.prompts.teachers.items()},
        "text": rollout.text,
        "finish_reason": rollout.finish_reason,
        "tokens": list(token_texts(tokenizer, rollout.token_ids.tolist())),
        "token_ids": rollout.token_ids.tolist(),
        "student_logprobs": _rounded(rollout.logprobs),
        "teacher_logprobs": {name: _rounded(score.logprobs) for name, score in completion.scores.items()},
        "ids_proved": {name: score.ids_proved for name, score in completion.scores.items()},
        **_where_there(completion, tokenizer, {} if datum is None else datum.inputs),
        **_topk_where_there(completion, tokenizer, topk),
    }


def _where_there(completion: ScoredRollout, tokenizer: Tokenizer, inputs: Mapping[str, Array]) -> dict[str, JsonValue]:
    """What only some runs, or some of their completions, have."""
    rollout, found = completion.rollout, dict[str, JsonValue]()
    special = np.isin(rollout.token_ids, [*tokenizer.special_tokens().values()])
    if special.any():
        found["special"] = [int(place) for place in np.flatnonzero(special)]
    if rollout.mask is not None:
        found["mask"] = rollout.mask.astype(int).tolist()
    if len(completion.scores) > 1:
        found["mixture"] = {name: round(share, DECIMALS) for name, share in completion.mixture.items()}
    for name in ("advantages", "weights"):
        if name in inputs and inputs[name].ndim == 1:
            found[name] = _rounded(inputs[name]) if name == "advantages" else _significant(inputs[name])
    if "entropy" in rollout.arrays:
        found["entropy"] = _rounded(rollout.arrays["entropy"])
    return found


def _topk_where_there(completion: ScoredRollout, tokenizer: Tokenizer, topk: int) -> dict[str, JsonValue]:
    """What the most probable tokens of either side were, and where the sampled one stands among the teacher's."""
    rollout, found = completion.rollout, dict[str, JsonValue]()
    if topk and "topk_ids" in rollout.arrays:
        found["student_topk"] = _topk(rollout.arrays, tokenizer, topk)
    tables = {name: score.arrays for name, score in completion.scores.items() if "topk_ids" in score.arrays}
    if topk and tables:
        found["teacher_topk"] = {name: _topk(arrays, tokenizer, topk) for name, arrays in tables.items()}
    if tables:
        found["teacher_ranks"] = {
            name: _ranks(arrays["topk_ids"], rollout.token_ids) for name, arrays in tables.items()
        }
    return found


def token_texts(tokenizer: Tokenizer, ids: Sequence[int]) -> Sequence[str]:
    """[R] the text of each token, which joined are the completion's with special tokens visible.

    Of a character whose bytes are divided over several tokens, the last of them has it and the others are empty.
    """
    alone, whole = [tokenizer.show([index]) for index in ids], tokenizer.show(ids)
    if "".join(alone) == whole:
        return alone
    texts: list[str] = []
    start, shown = 0, 0  # what is decoded begins a token or more before what is shown: the first may lose its space
    for end in range(1, len(ids) + 1):
        text = tokenizer.show(ids[start:end])
        if text.endswith(PART) and end < len(ids) and end - shown < CHARACTER_BYTES:
            texts.append("")
            continue
        texts.append(text[len(tokenizer.show(ids[start:shown])) :])
        start, shown = shown, end
    return texts


def _rounded(values: Array) -> list[JsonValue]:
    return [finite(round(x, DECIMALS)) for x in values.tolist()]


def _significant(values: Array) -> list[JsonValue]:
    """Of weights, which may all be as small as one divided by the step's tokens."""
    return [finite(float(f"{x:.4g}")) for x in values.tolist()]


def _topk(arrays: Mapping[str, Array], tokenizer: Tokenizer, topk: int) -> dict[str, JsonValue]:
    """The most probable tokens at each position, as text, and their logprobs: two tables of R rows.

    The first of a row, and behind it those that are not too improbable to stand there instead.
    """
    ids, logprobs = arrays["topk_ids"][:, :topk], arrays["topk_logprobs"][:, :topk]
    kept = (logprobs >= math.log(TOPK_LEAST)) & (ids >= 0)
    kept[:, 0] = True
    counts = kept.sum(1).cumsum()[:-1]
    texts = {index: tokenizer.show([index]) if index >= 0 else "" for index in np.unique(ids[kept]).tolist()}
    rounded = np.round(logprobs[kept].astype(np.float64), TOPK_DECIMALS)
    tokens, numbers = [texts[index] for index in ids[kept].tolist()], [finite(x) for x in rounded.tolist()]
    return {"tokens": _rows(tokens, counts.tolist()), "logprobs": _rows(numbers, counts.tolist())}


def _rows(values: Sequence[JsonValue], ends: Sequence[int]) -> list[JsonValue]:
    """`values` cut behind each of `ends`."""
    return [[*values[low:high]] for low, high in pairwise([0, *ends, len(values)])]


def _ranks(topk_ids: Array, token_ids: Array) -> list[JsonValue]:
    """[R] the place of each sampled token among the teacher's top-K, from 1; None where it is not among them."""
    there = topk_ids == token_ids[:, None]
    return [place + 1 if found else None for place, found in zip(there.argmax(1).tolist(), there.any(1), strict=True)]
