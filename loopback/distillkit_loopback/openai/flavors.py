"""Which dialects a server knows."""

from dataclasses import dataclass
from typing import Literal, get_args

from distillkit_loopback.openai.engine import Engine
from distillkit_loopback.openai.routes import RawResponse, Routes
from distillkit_loopback.openai.sglang import Generate
from distillkit_loopback.openai.sglang_management import SGLangManagement
from distillkit_loopback.openai.vllm import Completions, ManagementEndpoints
from distillkit_loopback.openai.vllm_tokens import Tokens
from distillkit_loopback.transport.messages import Response

FlavorName = Literal["vllm", "echo", "sglang"]
NAMES: tuple[FlavorName, ...] = get_args(FlavorName)


@dataclass(frozen=True, slots=True)
class Flavor:
    """Which dialects a server knows."""

    name: FlavorName = "vllm"
    """`vllm`: everything but `/generate`; `echo`: `/v1/completions` without `prompt_logprobs`, no more; `sglang`:
    `/generate` and what stands beside it, and `/v1/completions` as `echo` has it, of any model name."""
    ids: bool = True
    """Whether `/v1/completions` knows `return_token_ids` and `return_tokens_as_token_ids`, or ignores them."""
    scale_out: bool = False
    """Whether vLLM's `/inference/v1/generate` is there (`--enable-scale-out`)."""


def routes_of(engine: Engine, flavor: Flavor) -> Routes:
    """The endpoints of a server of that flavor."""
    owner = "sglang" if flavor.name == "sglang" else "vllm"
    is_vllm, is_sglang = flavor.name == "vllm", flavor.name == "sglang"
    completions = Completions(engine, prompt_logprobs=is_vllm, ids=flavor.ids, any_model=is_sglang)
    known: Routes = {
        ("GET", "/health"): lambda request, fault: RawResponse(b""),
        ("GET", "/v1/models"): lambda request, fault: Response(engine.catalogue.listing(owner)),
        ("POST", "/v1/completions"): completions.respond,
    }
    match flavor.name:
        case "vllm":
            tokens = Tokens(engine, scale_out=flavor.scale_out)
            management = ManagementEndpoints(engine).routes()
            return {**known, **management, ("POST", "/inference/v1/generate"): tokens.respond}
        case "sglang":
            return {**known, **Generate(engine).routes(), **SGLangManagement(engine).routes()}
        case "echo":
            return known
