"""Scorer `http`: a frozen teacher behind an OpenAI-compatible server, such as vLLM or SGLang."""

from collections.abc import AsyncIterator, Mapping, Sequence
from typing import TYPE_CHECKING, ClassVar

from pydantic import JsonValue, PrivateAttr

from distillkit import Sampler, Scorer
from distillkit.context import RunContext
from distillkit.errors import InputError
from distillkit.records import Failure, Rollout, Score, ScoreRequest, Weights
from distillkit.roles.plugin import CheckReport
from distillkit.tokenizer import Tokenizer
from distillkit.types import SampleRequest
from distillkit_builtin.hf_tokenizer import shared_tokenizer
from distillkit_builtin.http.frozen_teachers import declare_addresses
from distillkit_builtin.http.models import SGLANG_KEPT, ServedModel, find_model, served_models
from distillkit_builtin.http.options import HttpScorerOptions, more_logprobs
from distillkit_builtin.http.spoken import AT_IDS
from distillkit_builtin.remote.options import RemoteOptions
from distillkit_builtin.remote.preflight_request import send_preflight_request
from distillkit_builtin.remote.results import error_context

if TYPE_CHECKING:
    from distillkit_builtin.http.live_teacher import HttpTeacher


class HttpScorer(HttpScorerOptions, Scorer, Sampler):
    """A frozen teacher behind an OpenAI-compatible server that scores given tokens: vLLM, SGLang and others."""

    role: ClassVar[str] = "scorer"
    name: ClassVar[str] = "http"
    volatile: ClassVar[frozenset[str]] = frozenset({*RemoteOptions.model_fields, "dialect", "max_logprobs", "cache"})
    libraries: ClassVar[frozenset[str]] = frozenset({"httpx"})

    _served: ServedModel | None = PrivateAttr(None)
    _live: "HttpTeacher | None" = PrivateAttr(None)

    def declare(self, run: RunContext) -> None:
        """Say where the teacher is served: nobody may replace its weights."""
        declare_addresses(run, self.teacher.name, self.roots)

    def check(self, run: RunContext) -> CheckReport:
        """What the server serves, as notes. Raises InputError if it gives no response or serves another model."""
        who = f"teacher {self.teacher.name!r}"
        with error_context(who):
            result = send_preflight_request(self, "/v1/models")
            models = served_models(result.value, result.root)
            served = self._find(models, result.root)
        self._served = served
        replicas = f" and {len(self.roots) - 1} more" if len(self.roots) > 1 else ""
        return CheckReport((f"{who}: {served.id} at {result.root}{replicas}",))

    def _find(self, models: Sequence[ServedModel], root: str) -> ServedModel:
        """The teacher's model; of an SGLang, which has one base model, that one whatever it calls it."""
        if self.dialect == "sglang" and models and all(model.id != self.teacher.model for model in models):
            return models[0]
        served = find_model(models, self.teacher.model, root)
        if served.parent is not None and served.owned_by == "sglang" and self.dialect not in ("auto", "sglang"):
            raise InputError(
                f"{served.id} is an adapter at {root}, and SGLang's /v1/completions answers for its base model under "
                "any name; set dialect: sglang"
            )
        return served

    def tokenizer(self, run: RunContext) -> Tokenizer:
        """The tokenizer of `tokenizer_model`, else of the model's name; what the server does is compared in `open`."""
        source = self.teacher.tokenizer_model or self.teacher.model
        try:
            return shared_tokenizer(run, source)
        except InputError as error:
            if source != self.teacher.model:
                raise
            raise InputError(
                f"teacher {self.teacher.name!r}: {source!r}, as the server calls its model, names no tokenizer; set "
                "tokenizer_model to the served model's directory or hub name"
            ) from error

    def context_length(self, run: RunContext) -> int | None:
        """What the server says, where it does, but for what it leaves no room for behind what it scores."""
        if self._served is None or self._served.max_model_len is None:
            return None
        return self._served.max_model_len - (SGLANG_KEPT if self._served.owned_by == "sglang" else 1)

    def fingerprint(self) -> Mapping[str, str]:
        """What the server says it serves: the model's name, and where the server has it from."""
        served = self._served
        return {} if served is None else {"served model": f"{served.id} {served.root or ''}".rstrip()}

    def capabilities(self) -> Mapping[str, int | None]:
        """`sampled`; `topk` up to `max_logprobs`; `at_ids`, any number, by vLLM's token interface.

        Whether a server has that is found out at `open`; dialect `auto` is taken to find it until then.
        """
        given: dict[str, int | None] = {"sampled": None, "topk": self.max_logprobs}
        found = self.dialect in ("auto", "vllm_tokens") if self._live is None else self._live.spoken.given is not None
        return {**given, "at_ids": None} if found and self.max_logprobs != 1 else given

    def way_out(self, need: str, amount: int, given: int) -> str:
        """How a server gives more, or who does."""
        ways = {"topk": more_logprobs(amount), "at_ids": AT_IDS, "full": "serve the teacher locally"}
        return ways.get(need, "")

    async def open(self, run: RunContext) -> None:
        """Connect, find the dialect, compare tokenizers."""
        from distillkit_builtin.http.live_teacher import HttpTeacher

        if self._served is None:
            raise RuntimeError("HttpScorer is opened before it was checked")
        self._live = await HttpTeacher.open(run, self.teacher, self, self.tokenizer(run), self._served)

    def provenance(self) -> Mapping[str, JsonValue]:
        """What is served, where, by which version of the server, and how it is asked."""
        if self._served is None or self._live is None:
            return {}
        served = self._served.provenance(self.roots, self._live.server_version)
        return {**served, "dialect": self._live.spoken.name}

    async def close(self) -> None:
        """Close the connections to the server."""
        if self._live is not None:
            live, self._live = self._live, None
            await live.close()

    async def score(self, requests: Sequence[ScoreRequest]) -> AsyncIterator[Score | Failure]:
        """Score each as soon as the window has a free slot."""
        async for outcome in self._open_teacher().score(requests):
            yield outcome

    def replicas(self) -> Sequence[str]:
        """The servers' addresses."""
        return self.roots

    async def score_anew(self, requests: Sequence[ScoreRequest], replica: str) -> AsyncIterator[Score | Failure]:
        """Scores that the server at `replica` computes now, around the cache."""
        async for outcome in self._open_teacher().score_anew(requests, replica):
            yield outcome

    async def sample(self, requests: Sequence[SampleRequest]) -> AsyncIterator[Rollout | Failure]:
        """The teacher's own completions, for evaluators."""
        async for outcome in self._open_teacher().sample(requests):
            yield outcome

    async def sync(self, weights: Weights) -> None:
        """Do nothing: this teacher is frozen."""

    def metrics(self) -> Mapping[str, float]:
        """`concurrency/<slug>/window` and so on; `cache/<slug>/hits` and so on where there is a cache."""
        return {} if self._live is None else self._live.metrics()

    def _open_teacher(self) -> "HttpTeacher":
        if self._live is None:
            raise RuntimeError("HttpScorer is used before open() or after close()")
        return self._live
