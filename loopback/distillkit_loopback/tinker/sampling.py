"""One sample request computed: completions, and what is asked of the prompt's own logprobs."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from distillkit.arrays import FloatArray
from distillkit.seeds import derive_seed
from distillkit_loopback.hf.causal_lm import CausalLM
from distillkit_loopback.sampling_fields import SamplingFields
from distillkit_loopback.tinker.behavior import Behavior
from distillkit_loopback.tinker.faults import Fault, FewerLogprobs, MissingLogprobs, NaNLogprob, WrongIds
from distillkit_loopback.tinker.messages import MASKED, Numbers, Sampled, SampledIds, TopK, dense
from distillkit_loopback.transport.messages import Body


class Chunk(Body):
    """Some of a prompt's tokens."""

    tokens: tuple[int, ...]


class Prompt(Body):
    """A prompt."""

    chunks: tuple[Chunk, ...]

    @property
    def ids(self) -> tuple[int, ...]:
        """All its tokens."""
        return tuple(token for chunk in self.chunks for token in chunk.tokens)


class SamplingParameters(Body):
    """How completions are sampled."""

    max_tokens: int | None = None
    seed: int | None = None
    stop: str | tuple[int, ...] | tuple[str, ...] | None = None
    temperature: float = Field(1.0, ge=0.0)
    top_k: int = -1
    top_p: float = 1.0


class SentTensor(Body):
    """A tensor as JSON: flat values, or those of a sparse one by rows."""

    data: tuple[int, ...]
    shape: tuple[int, ...]
    sparse_crow_indices: tuple[int, ...] | None = None
    sparse_col_indices: tuple[int, ...] | None = None

    def read(self) -> Numbers:
        """[rows, columns]; -1 where a sparse one lists nothing."""
        if self.sparse_crow_indices is None:
            return np.array(self.data, np.float64).reshape(self.shape)
        return dense(np.array(self.data) + 1, self.sparse_crow_indices, self.sparse_col_indices or (), self.shape) - 1


class SampleBody(Body):
    """The body of a request for completions or scores."""

    prompt: Prompt
    sampling_params: SamplingParameters
    num_samples: int = Field(1, ge=1)
    base_model: str | None = None
    model_path: str | None = None
    sampling_session_id: str | None = None
    seq_id: int | None = None
    prompt_logprobs: bool | None = None
    topk_prompt_logprobs: int = Field(0, ge=0)
    topk_sample_logprobs: int = Field(0, ge=0)
    target_prompt_logprobs: SentTensor | None = None
    prompt_alt_tokens_k: int = Field(0, ge=0)
    prompt_logprobs_last_n: int | None = None


@dataclass(frozen=True, slots=True)
class Sampler:
    """A model that samples and scores, as one server or the other does."""

    model: CausalLM
    behavior: Behavior
    tempered: bool
    """Logprobs of completions are those at the temperature that sampled them."""

    def sample(self, body: SampleBody, seed: int, fault: Fault | None) -> Sampled:
        """All that the request asks for. Raises ValueError for what the server cannot compute."""
        prompt = _altered(body.prompt.ids, fault, "prompt", self.model.vocabulary)
        seeds = [seed, *(derive_seed(seed, number) for number in range(1, body.num_samples))]
        choices = self.behavior.scores_choices
        if body.topk_prompt_logprobs and not choices:
            raise ValueError("topk_prompt_logprobs is not supported by the JAX backend")
        completions = [self._completion(prompt, body, each, fault) for each in seeds]
        asked = body.prompt_logprobs or (choices and (body.topk_prompt_logprobs or body.target_prompt_logprobs))
        if not asked:
            return Sampled(completions)
        rows = self.model.logprobs(prompt) if len(prompt) > 1 else torch.zeros((0, self.model.vocabulary))
        first = self._first(len(prompt), body)
        return Sampled(
            completions,
            _distorted(self._prompt_logprobs(rows, prompt, first), fault) if body.prompt_logprobs else None,
            _topk(rows, body.topk_prompt_logprobs, first) if choices and body.topk_prompt_logprobs else None,
            _targets(rows, body.target_prompt_logprobs) if choices and body.target_prompt_logprobs else None,
        )

    def _first(self, count: int, body: SampleBody) -> int:
        """The first position of the prompt that is scored."""
        last = body.prompt_logprobs_last_n
        return 1 if last is None or not self.behavior.scores_choices else max(1, count - last)

    def _prompt_logprobs(self, rows: Tensor, prompt: Sequence[int], first: int) -> FloatArray:
        found = np.full(len(prompt), np.nan, np.float32)
        found[1:] = rows.gather(1, torch.tensor(prompt[1:], dtype=torch.int64)[:, None])[:, 0].numpy()
        if not self.behavior.scores_first:
            return found[1:]
        found[:first] = np.nan
        return found

    def _completion(self, prompt: Sequence[int], body: SampleBody, seed: int, fault: Fault | None) -> SampledIds:
        sent = body.sampling_params
        stops = (sent.stop,) if isinstance(sent.stop, str) else sent.stop
        fields = SamplingFields(
            max_tokens=sent.max_tokens or 0,
            temperature=sent.temperature,
            top_p=sent.top_p,
            top_k=max(sent.top_k, 0),
            stop=tuple(stop for stop in stops or () if isinstance(stop, str)),
            stop_ids=tuple(stop for stop in stops or () if isinstance(stop, int)),
        )
        ends = self.model.eos_ids if stops is None and self.behavior.stops_at_eos else frozenset[int]()
        sample = replace(self.model, eos_ids=ends).sample(prompt, seed, fields)
        logprobs = np.array(sample.logprobs, np.float32)
        count = body.topk_sample_logprobs if self.behavior.scores_choices else 0
        tempered = self.tempered and sent.temperature not in (0.0, 1.0)
        topk = None
        if tempered or count:
            rows = self.model.logprobs([*prompt, *sample.ids], start=len(prompt))
            if tempered:
                scaled = torch.log_softmax(rows / sent.temperature, dim=1)
                logprobs = scaled.gather(1, torch.tensor(sample.ids)[:, None])[:, 0].numpy()
            topk = _best(rows, count) if count else None
        ids = _altered(sample.ids, fault, "completion", self.model.vocabulary)
        return SampledIds(ids, _distorted(logprobs, fault), sample.finish_reason, topk)


def _best(rows: Tensor, count: int) -> TopK:
    best = rows.topk(min(count, rows.shape[1]), dim=1)
    return TopK(best.indices.numpy(), best.values.numpy())


def _topk(rows: Tensor, count: int, first: int) -> TopK:
    """[n + 1, k]: nothing for the first token, nor before `first`."""
    best = _best(rows, count)
    ids = np.concatenate([np.zeros((1, count), np.int64), best.ids])
    logprobs = np.concatenate([np.full((1, count), MASKED, np.float32), best.logprobs])
    ids[:first], logprobs[:first] = 0, MASKED
    return TopK(ids, logprobs)


def _targets(rows: Tensor, asked: SentTensor) -> FloatArray:
    """[n, K] of the requested ids; raises ValueError for another number of rows."""
    wanted = torch.from_numpy(asked.read().astype(np.int64))
    if wanted.shape[:1] != rows.shape[:1]:
        raise ValueError(f"target_prompt_logprobs has {len(wanted)} rows, not {len(rows)}")
    found = rows.gather(1, wanted.clamp(min=0))
    return np.asarray(torch.where(wanted < 0, torch.zeros_like(found), found).numpy(), np.float32)


def _altered(ids: tuple[int, ...], fault: Fault | None, of: str, vocabulary: int) -> tuple[int, ...]:
    if not isinstance(fault, WrongIds) or fault.of != of or not ids:
        return ids
    changed = list(ids)
    changed[fault.at] = (changed[fault.at] + 1) % vocabulary
    return tuple(changed)


def _distorted(logprobs: FloatArray, fault: Fault | None) -> FloatArray | None:
    match fault:
        case MissingLogprobs():
            return None
        case FewerLogprobs():
            return logprobs[:-1]
        case NaNLogprob(at) if -len(logprobs) <= at < len(logprobs):
            changed = logprobs.copy()
            changed[at] = np.nan
            return changed
    return logprobs
