"""Sampler `vllm`: completions from vLLM servers, which are given the student's new weights at each sync."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, ClassVar

from distillkit.context import RunContext
from distillkit.errors import InputError
from distillkit_builtin.http.models import ServedModel, find_model, served_models
from distillkit_builtin.http.options import more_logprobs
from distillkit_builtin.pushed.sampler import PushedSampler
from distillkit_builtin.remote.preflight_request import send_preflight_request
from distillkit_builtin.vllm.options import LOWEST_TEMPERATURE, VllmSamplerOptions

if TYPE_CHECKING:
    from distillkit_builtin.vllm.live_sampler import LiveVllmSampler


class VllmSampler(VllmSamplerOptions, PushedSampler):
    """Completions from vLLM servers that serve the student's base model; each sync pushes the LoRA, or all weights."""

    name: ClassVar[str] = "vllm"
    volatile: ClassVar[frozenset[str]] = frozenset(VllmSamplerOptions.model_fields)
    lowest_temperature: ClassVar[float] = LOWEST_TEMPERATURE

    def find_served(self) -> tuple[ServedModel, str]:
        """What `/v1/models` says."""
        result = send_preflight_request(self, "/v1/models")
        models = served_models(result.value, result.root)
        return self._base_of(models, result.root), result.root

    def _base_of(self, models: Sequence[ServedModel], root: str) -> ServedModel:
        """The served base model. Raises InputError if there are several and `model` names none of them."""
        bases = [model for model in models if model.parent is None]
        if self.model is not None:
            return find_model(bases, self.model, root)
        if len(bases) != 1:
            known = ", ".join(model.id for model in bases) or "none"
            raise InputError(f"{root} serves {known}; set `model` to the student's base model")
        return bases[0]

    def sampling_capabilities(self) -> Mapping[str, int | None]:
        """`topk` up to `max_logprobs`. No entropy: top-K logprobs are only a part of it."""
        return {"topk": self.max_logprobs}

    def way_out(self, need: str, amount: int, given: int) -> str:
        """How a server gives more, or who does."""
        own = f"let the student sample by itself, which gives {need} (leave out student.sampler)"
        return more_logprobs(amount) if need == "topk" else own

    async def connected(self, run: RunContext, base_model: str) -> "LiveVllmSampler":
        """Raises InputError if prompts do not fit a server, or its logprobs are not those at temperature 1."""
        from distillkit_builtin.vllm.live_sampler import LiveVllmSampler

        return await LiveVllmSampler.open(run, self, base_model)
