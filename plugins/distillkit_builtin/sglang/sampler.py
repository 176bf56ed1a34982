"""Sampler `sglang`: completions from SGLang servers, which are given the student's new weights at each sync."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar

from distillkit.context import RunContext
from distillkit_builtin.http.models import ServedModel
from distillkit_builtin.pushed.options import PushedSamplerOptions
from distillkit_builtin.pushed.sampler import PushedSampler
from distillkit_builtin.remote.preflight_request import send_preflight_request
from distillkit_builtin.sglang.server_info import PATH, base_model, server_info

if TYPE_CHECKING:
    from distillkit_builtin.sglang.live_sampler import LiveSGLangSampler


class SGLangSampler(PushedSampler):
    """Completions from SGLang servers that serve the student's base model; each sync pushes the LoRA or all weights."""

    name: ClassVar[str] = "sglang"
    volatile: ClassVar[frozenset[str]] = frozenset(PushedSamplerOptions.model_fields)

    def find_served(self) -> tuple[ServedModel, str]:
        """What `/server_info` and `/v1/models` say."""
        models = send_preflight_request(self, "/v1/models")
        info = send_preflight_request(self, PATH)
        served = base_model(server_info(info.value, info.root), models.value, models.root, self.model)
        return served, models.root

    def sampling_capabilities(self) -> Mapping[str, int | None]:
        """`topk`, any number. No entropy: top-K logprobs are only a part of it."""
        return {"topk": None}

    def way_out(self, need: str, amount: int, given: int) -> str:
        """Who gives it."""
        return f"let the student sample by itself, which gives {need} (leave out student.sampler)"

    async def connected(self, run: RunContext, base_model: str) -> "LiveSGLangSampler":
        """Raises InputError if prompts do not fit a server, or its logprobs are not those at temperature 1."""
        from distillkit_builtin.sglang.live_sampler import LiveSGLangSampler

        return await LiveSGLangSampler.open(run, self, base_model)
