"""What a model says: completions drawn from it, its own view of a prompt, and what else it thought likely."""

from collections.abc import Iterator, Sequence

import torch
from pydantic import Field

from distillkit.arrays import token_ids
from distillkit.records import Rollout
from distillkit.seeds import derive_seed
from distillkit.types import SampleKey, SampleRequest, SamplingParams
from distillkit_builtin.hf_tokenizer import HFTokenizer
from distillkit_builtin.local.causal_lm import CausalLM, PromptAndResponse
from distillkit_builtin.local.generator import eos_ids_of
from distillkit_builtin.local.plain_generator import PlainGenerator
from distillkit_builtin.local.scoring import score_logprobs
from distillkit_loopback.fireworks.stream import Completion, Row
from distillkit_loopback.transport.messages import Body

Candidates = tuple[tuple[int, float], ...]
"""Ids and logprobs, the likeliest first."""
MAX_CANDIDATES = 5
"""What the real service takes as `top_logprobs`."""


class CompletionBody(Body):
    """What is asked for."""

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

    @property
    def params(self) -> SamplingParams:
        """As the local backend draws."""
        stop = (self.stop,) if isinstance(self.stop, str) else self.stop
        return SamplingParams(self.max_tokens, self.temperature, self.top_p, self.top_k, stop)

    @property
    def echoed(self) -> int:
        """How many of the prompt's last tokens are sent back before the completion; `echo_last` overrules `echo`."""
        wanted = len(self.prompt) if self.echo else 0
        return min(wanted if self.echo_last is None else self.echo_last, len(self.prompt))


def complete(network: CausalLM, tokenizer: HFTokenizer, body: CompletionBody, seed: int) -> list[Completion]:
    """Draw `body.n` completions, the first by `seed` itself; score as much of the prompt as is to be echoed."""
    generator = PlainGenerator(network, tokenizer, eos_ids_of(network, tokenizer))
    seeds = [seed, *(derive_seed(seed, sample) for sample in range(1, body.n))]
    prompt = _prompt_logprobs(network, body.prompt) if body.echoed else []
    return [_completion(network, tokenizer, body, _drawn(generator, body, each), prompt) for each in seeds]


def _drawn(generator: PlainGenerator, body: CompletionBody, seed: int) -> Rollout:
    """Each by itself: then not even rounding depends on what else is drawn."""
    drawn: list[Rollout] = []
    request = SampleRequest(SampleKey("wire", 0, 0), token_ids(body.prompt), seed, body.params)
    generator.generate_batch([request], 0, drawn.append)
    return drawn[0]


def _completion(
    network: CausalLM, tokenizer: HFTokenizer, body: CompletionBody, rollout: Rollout, prompt: Sequence[float]
) -> Completion:
    start = len(body.prompt) - body.echoed
    whole = (*body.prompt, *rollout.token_ids.tolist())
    ids = whole[start:]
    rows = None
    if body.logprobs:
        logprobs = [*prompt[start:], *rollout.logprobs.tolist()]
        likely = _candidates(network, whole, body.top_logprobs)[start:] if body.top_logprobs else [()] * len(ids)
        rows = tuple(_rows(tokenizer, ids, logprobs, likely, known_law=body.params.is_untouched))
    return Completion(body.prompt, ids, body.echoed, rows, tokenizer.show(ids), rollout.finish_reason)


def _rows(
    tokenizer: HFTokenizer,
    ids: Sequence[int],
    logprobs: Sequence[float],
    likely: Sequence[Candidates],
    *,
    known_law: bool,
) -> Iterator[Row]:
    for token, logprob, others in zip(ids, logprobs, likely, strict=True):
        top = tuple(Row(tokenizer.show([other]), other, value) for other, value in others)
        yield Row(tokenizer.show([token]), token, logprob, logprob if known_law else None, top)


def _prompt_logprobs(network: CausalLM, prompt: tuple[int, ...]) -> list[float]:
    """One a token of the prompt; nothing stands before the first, and the SDK takes no null."""
    if len(prompt) == 1:
        return [0.0]
    scored, _ = score_logprobs(network, [PromptAndResponse(token_ids(prompt[:1]), token_ids(prompt[1:]))])
    return [0.0, *scored.tolist()]


@torch.inference_mode()
def _candidates(network: CausalLM, ids: tuple[int, ...], count: int) -> list[Candidates]:
    """The `count` likeliest tokens at each place of `ids`; at the first, which nothing precedes, the token alone."""
    read = torch.tensor(ids[:-1], device=network.device.device)[None]
    laws = torch.log_softmax(network.head(network.hidden_states(read)[0]).float(), dim=1)
    best = laws.topk(count, dim=1)
    pairs = zip(best.indices.tolist(), best.values.tolist(), strict=True)
    return [((ids[0], 0.0),), *(tuple(zip(places, values, strict=True)) for places, values in pairs)]
