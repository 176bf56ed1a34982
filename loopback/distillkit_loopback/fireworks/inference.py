"""What a model serves: completions sampled from it, the logprobs of a prompt, and the top-k at each position."""

from collections.abc import Iterator, Sequence

from pydantic import Field

from distillkit.seeds import derive_seed
from distillkit.types import SamplingParams
from distillkit_loopback.fireworks.stream import Completion, Row
from distillkit_loopback.hf.causal_lm import CausalLM, Sample
from distillkit_loopback.hf.tokenizer import HFTokenizer
from distillkit_loopback.transport.messages import Body

Candidates = tuple[tuple[int, float], ...]
"""Ids and logprobs, in descending order of logprob."""
MAX_CANDIDATES = 5
"""The largest `top_logprobs` that the real service takes."""


class CompletionBody(Body):
    """A request for completions."""

    model: str
    prompt: tuple[int, ...]
    max_tokens: int = 16
    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    stop: str | tuple[str, ...] = ()
    seed: int | None = None
    echo: bool = False
    echo_last: int | None = Field(None, ge=0)
    logprobs: bool = False
    top_logprobs: int | None = Field(None, ge=0, le=MAX_CANDIDATES)
    stream: bool = False
    n: int = Field(1, ge=1)

    def params(self, tokenizer: HFTokenizer) -> SamplingParams:
        """The sampling fields as distillkit has them; a stop string that is a token of `tokenizer` ends by its id.

        The service takes no ids, and the SDK gives those that it is asked for by their text, special tokens too.
        """
        stops = (self.stop,) if isinstance(self.stop, str) else self.stop
        ids = tuple(index for stop in stops if (index := tokenizer.special_id(stop)) is not None)
        texts = tuple(stop for stop in stops if tokenizer.special_id(stop) is None)
        return SamplingParams(self.max_tokens, self.temperature, self.top_p, self.top_k, texts, ids)

    @property
    def reports_sampling_logprobs(self) -> bool:
        """Whether the distribution that is sampled from is the one whose logprobs are reported."""
        return self.temperature == 1.0 and self.top_p == 1.0 and self.top_k == 0

    @property
    def echoed(self) -> int:
        """How many of the prompt's last tokens are sent back before the completion; `echo_last` overrules `echo`."""
        requested = len(self.prompt) if self.echo else 0
        return min(requested if self.echo_last is None else self.echo_last, len(self.prompt))


def complete(model: CausalLM, body: CompletionBody, seed: int) -> list[Completion]:
    """Sample `body.n` completions, the first by `seed` itself; score as much of the prompt as is to be echoed."""
    seeds = [seed, *(derive_seed(seed, sample) for sample in range(1, body.n))]
    prompt = _prompt_logprobs(model, body.prompt) if body.echoed else []
    params = body.params(model.tokenizer)
    return [_completion(model, body, model.sample(body.prompt, each, params), prompt) for each in seeds]


def _completion(model: CausalLM, body: CompletionBody, sample: Sample, prompt: Sequence[float]) -> Completion:
    start = len(body.prompt) - body.echoed
    whole = (*body.prompt, *sample.ids)
    ids = whole[start:]
    rows = None
    if body.logprobs:
        logprobs = [*prompt[start:], *sample.logprobs]
        topk = _topk(model, whole, body.top_logprobs)[start:] if body.top_logprobs else [()] * len(ids)
        rows = tuple(_rows(model.tokenizer, ids, logprobs, topk, sampling=body.reports_sampling_logprobs))
    return Completion(body.prompt, ids, body.echoed, rows, model.tokenizer.show(ids), sample.finish_reason)


def _rows(
    tokenizer: HFTokenizer, ids: Sequence[int], logprobs: Sequence[float], topk: Sequence[Candidates], *, sampling: bool
) -> Iterator[Row]:
    for token, logprob, others in zip(ids, logprobs, topk, strict=True):
        top = tuple(Row(tokenizer.show([other]), other, value) for other, value in others)
        yield Row(tokenizer.show([token]), token, logprob, logprob if sampling else None, top)


def _prompt_logprobs(model: CausalLM, prompt: tuple[int, ...]) -> list[float]:
    """One a token of the prompt; nothing predicts the first, and the SDK takes no null."""
    if len(prompt) == 1:
        return [0.0]
    predicted = model.logprobs(prompt)
    return [0.0, *(float(row[index]) for row, index in zip(predicted, prompt[1:], strict=True))]


def _topk(model: CausalLM, ids: tuple[int, ...], count: int) -> list[Candidates]:
    """The top-k tokens at each position of `ids`; at the first, which nothing precedes, the token alone."""
    best = model.logprobs(ids).topk(count, dim=1)
    pairs = zip(best.indices.tolist(), best.values.tolist(), strict=True)
    return [((ids[0], 0.0),), *(tuple(zip(indices, values, strict=True)) for indices, values in pairs)]
