"""`/v1/completions` and the endpoints beside it, as vLLM 0.32 has them; or as a server that knows only echo.

With `max_tokens` 0 and an echo vLLM samples one token all the same, and shows it in `token_ids` and `usage` alone.
"""

from collections.abc import Mapping

from pydantic import JsonValue

from distillkit_loopback.openai.bodies import (
    CollectiveRpcBody,
    CompletionBody,
    LoadBody,
    TokenizeBody,
    UnloadBody,
    VersionBody,
    sampling_params,
)
from distillkit_loopback.openai.choices import choice
from distillkit_loopback.openai.completion import Task
from distillkit_loopback.openai.engine import Engine
from distillkit_loopback.openai.errors import Refused, read
from distillkit_loopback.openai.faults import Fault
from distillkit_loopback.openai.routes import Function, RawResponse
from distillkit_loopback.transport.messages import Request, Response


class Completions:
    """The endpoint `POST /v1/completions`, as vLLM has it."""

    def __init__(self, engine: Engine, *, prompt_logprobs: bool, ids: bool, any_model: bool = False) -> None:
        """Without `prompt_logprobs` or `ids` those fields are ignored in requests, and are not in responses.

        `any_model`: as SGLang has it, which takes every name for that of its base model, samples at least one token,
        and names candidates by their text.
        """
        self._engine = engine
        self._any_model = any_model
        self._ignored: dict[str, object] = {}
        self._left_out: set[str] = set()
        if not prompt_logprobs:
            self._ignored |= {"prompt_logprobs": None}
            self._left_out |= {"prompt_logprobs"}
        if not ids:
            self._ignored |= {"return_token_ids": False, "return_tokens_as_token_ids": False}
            self._left_out |= {"token_ids", "prompt_token_ids"}
        if any_model:
            self._ignored |= {"return_tokens_as_token_ids": False}

    def respond(self, request: Request, fault: Fault | None) -> Response:
        """The response to a completion request, with one choice."""
        body = read(CompletionBody, request.body).model_copy(update=self._ignored)
        model = self._engine.catalogue.find(None if self._any_model else body.model)
        prompt = self._engine.ids(model, body.prompt)
        self._require_possible(body, len(prompt), model.vocabulary)
        completion = self._engine.compute(model, self._task(body, prompt), fault)
        found = choice(completion, body, model)
        generated = max(len(completion.sampled_ids), 1)
        return Response(
            {
                "id": "cmpl-loopback",
                "object": "text_completion",
                "created": 0,
                "model": body.model or self._engine.catalogue.name,
                "choices": [{name: value for name, value in found.items() if name not in self._left_out}],
                "usage": {
                    "prompt_tokens": len(prompt),
                    "completion_tokens": generated,
                    "total_tokens": len(prompt) + generated,
                },
            }
        )

    def _task(self, body: CompletionBody, prompt: tuple[int, ...]) -> Task:
        # What is echoed has the logprobs of the prompt, so a request for one is a request for the other.
        prompt_top = body.logprobs if body.echo and body.prompt_logprobs is None else body.prompt_logprobs
        shown = body.max_tokens > 0
        hidden = not shown and body.return_token_ids
        params = sampling_params(body.model_copy(update={"max_tokens": 1}) if hidden else body)
        seed = self._engine.seed(body.seed, prompt)
        return Task(prompt, params, seed, prompt_top, body.logprobs if shown else None)

    def _require_possible(self, body: CompletionBody, length: int, vocabulary: int) -> None:
        body.require_computed()
        limit = self._engine.catalogue.context_length
        if self._any_model and body.max_tokens == 0:
            raise Refused(400, "max_tokens must be positive", param="max_tokens")
        if body.max_tokens == 0 and not body.echo:
            raise Refused(400, "max_tokens must be at least 1, got 0.", param="max_tokens")
        if length + body.max_tokens > limit:
            raise Refused(
                400,
                f"This model's maximum context length is {limit} tokens. However, you requested {body.max_tokens} "
                f"output tokens and your prompt contains {length} input tokens.",
                param="input_tokens",
            )
        unknown = [index for index in body.stop_token_ids or () if not 0 <= index < vocabulary]
        if unknown:
            what = f"token_id(s) {unknown} in stop_token_ids contain out-of-vocab token ids."
            raise Refused(400, f"{what} Vocabulary size: {vocabulary}", param="stop_token_ids")
        self._require_few("logprobs", "sample", body.logprobs)
        self._require_few("prompt_logprobs", "prompt", body.prompt_logprobs)

    def _require_few(self, param: str, what: str, count: int | None) -> None:
        most = self._engine.max_logprobs
        if (count or 0) > most:
            raise Refused(
                400, f"Requested {what} logprobs of {count}, which is greater than max allowed: {most}", param=param
            )


class ManagementEndpoints:
    """Runtime adapters, tokenization, and the development endpoints (`VLLM_SERVER_DEV_MODE`)."""

    def __init__(self, engine: Engine) -> None:
        """Adapters are loaded into the engine's catalogue."""
        self._engine = engine

    def routes(self) -> Mapping[tuple[str, str], Function]:
        """The handlers by HTTP method and path."""
        return {
            ("GET", "/version"): lambda request, fault: Response({"version": "0.32.0"}),
            ("POST", "/tokenize"): self._tokenize,
            ("POST", "/v1/load_lora_adapter"): self._load,
            ("POST", "/v1/unload_lora_adapter"): self._unload,
            ("POST", "/collective_rpc"): self._call,
            ("POST", "/reset_prefix_cache"): lambda request, fault: RawResponse(b""),
            ("POST", "/update_weight_version"): self._label,
            ("POST", "/pause"): self._pause,
            ("POST", "/resume"): self._resume,
            ("GET", "/is_paused"): lambda request, fault: Response({"is_paused": self._engine.gate.paused}),
            ("GET", "/weight_info"): lambda request, fault: self._weight_info(),
        }

    def _tokenize(self, request: Request, fault: Fault | None) -> Response:
        body = read(TokenizeBody, request.body)
        tokens: list[JsonValue] = [*self._engine.catalogue.find(body.model).tokenizer.encode(body.prompt)]
        length = self._engine.catalogue.context_length
        return Response({"count": len(tokens), "max_model_len": length, "tokens": tokens, "token_strs": None})

    def _load(self, request: Request, fault: Fault | None) -> Response:
        return RawResponse(self._engine.catalogue.load(read(LoadBody, request.body)).encode())

    def _unload(self, request: Request, fault: Fault | None) -> Response:
        return RawResponse(self._engine.catalogue.unload(read(UnloadBody, request.body)).encode())

    def _call(self, request: Request, fault: Fault | None) -> Response:
        """`reload_weights` of one worker; no other method is known."""
        body = read(CollectiveRpcBody, request.body)
        if body.method != "reload_weights":
            raise Refused(500, f"'Worker' object has no attribute '{body.method}'", "InternalServerError")
        self._engine.catalogue.reload(str(body.arguments.get("weights_path")))
        return Response({"results": [None]})

    def _label(self, request: Request, fault: Fault | None) -> Response:
        self._engine.catalogue.weight_version = read(VersionBody, request.body).new_version
        return self._weight_info()

    def _pause(self, request: Request, fault: Fault | None) -> Response:
        """`mode=wait` alone: the others end or freeze what is under way."""
        if request.query.get("mode") != "wait":
            raise Refused(400, "the loopback server pauses with mode=wait alone")
        self._engine.gate.pause()
        return Response({"status": "paused"})

    def _resume(self, request: Request, fault: Fault | None) -> Response:
        self._engine.gate.resume()
        return Response({"status": "resumed"})

    def _weight_info(self) -> Response:
        return Response({"weight_version": self._engine.catalogue.weight_version})
