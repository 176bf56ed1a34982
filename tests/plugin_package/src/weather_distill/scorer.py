"""A teacher that needs no model: it likes vowels."""

import math
from collections.abc import AsyncIterator, Sequence
from typing import ClassVar

import numpy as np
from pydantic import Field

from distillkit import Failure, RunContext, Score, Scorer, ScoreRequest, Tokenizer, logprob_array
from distillkit.testing import ByteTokenizer


class VowelScorer(Scorer):
    """Vowels share a probability, all other bytes share the rest."""

    name: ClassVar[str] = "vowels"

    share: float = Field(0.5, gt=0, lt=1, description="The probability of all vowels together.")

    def tokenizer(self, run: RunContext) -> Tokenizer:
        """Bytes."""
        return run.share("byte tokenizer", ByteTokenizer)

    def context_length(self, run: RunContext) -> int | None:
        """Any length."""
        return None

    async def score(self, requests: Sequence[ScoreRequest]) -> AsyncIterator[Score | Failure]:
        """Each at once."""
        vowels = list(b"aeiou")
        logprobs = np.full(ByteTokenizer.size, math.log((1 - self.share) / (ByteTokenizer.size - len(vowels))))
        logprobs[vowels] = math.log(self.share / len(vowels))
        for request in requests:
            ids = request.token_ids
            yield Score(request, logprob_array(logprobs[ids]), echoed_ids=ids)
