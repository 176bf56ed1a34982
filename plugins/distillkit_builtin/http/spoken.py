"""What is asked of a server for one completion: one request, or several whose answers make one."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from distillkit.errors import InputError
from distillkit_builtin.http.dialects.dialect import Dialect, ScoreQuery, TokenLogprobs
from distillkit_builtin.http.dialects.vllm_tokens import VllmTokens

AT_IDS = (
    "only vLLM gives logprobs of given ids: 0.32 or newer, on its V2 model runner (CUDA; VLLM_USE_V2_MODEL_RUNNER=1), "
    "started with --enable-scale-out and the --max-logprobs that max_logprobs says, by dialect: vllm_tokens or auto"
)


@dataclass(frozen=True, slots=True)
class Spoken:
    """How a server is asked."""

    dialect: Dialect
    """For the top-k, and for the sampled tokens where nothing is `given`."""
    given: VllmTokens | None = None
    """For the response's rows alone: the sampled tokens, and given ids; None: the server is not asked for them."""
    most: int | None = None
    """How many logprobs of a position one request may ask for; None: any number."""

    @property
    def name(self) -> str:
        """The dialects, for `summary.json`."""
        return ", ".join(type(each).__name__ for each in (self.dialect, self.given) if each is not None)

    def requests(self, query: ScoreQuery) -> Iterator[tuple[Dialect, ScoreQuery]]:
        """What answers `query`, part by part. Raises InputError for `at_ids` that the server does not give."""
        if query.topk or (query.at_ids is None and self.given is None):
            yield self.dialect, replace(query, at_ids=None)
        elif query.at_ids is None and self.given is not None:
            yield self.given, query
        if query.at_ids is None:
            return
        if self.given is None:
            raise InputError(f"the server is asked for logprobs of given ids, and does not give them: {AT_IDS}")
        columns = query.at_ids.shape[1]
        step = max(columns, 1) if self.most is None else max(1, self.most - 1)  # the sampled id is there each time
        for start in range(0, max(columns, 1), step):
            yield self.given, replace(query, topk=0, at_ids=query.at_ids[:, start : start + step])


def joined(answers: Sequence[TokenLogprobs]) -> TokenLogprobs:
    """One answer out of the parts of a query, in their order."""
    tables = [answer.at_logprobs for answer in answers if answer.at_logprobs is not None]
    return replace(answers[0], at_logprobs=np.concatenate(tables, axis=1)) if tables else answers[0]
