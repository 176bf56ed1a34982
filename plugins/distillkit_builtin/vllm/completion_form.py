"""By which endpoint servers are asked for completions: found out once, when a run starts."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

from distillkit.context import Notify
from distillkit.errors import AlignmentError, InputError
from distillkit.frozen import frozen
from distillkit.records import Failure
from distillkit.tokenizer import Tokenizer
from distillkit.types import SampleRequest
from distillkit_builtin.http.completions import Completions
from distillkit_builtin.http.probe import NOT_OFFERED
from distillkit_builtin.http.sampled import CompletionForm
from distillkit_builtin.http.weight_spans import only_version
from distillkit_builtin.remote.request_fields import refused_field
from distillkit_builtin.remote.results import RefusedError
from distillkit_builtin.remote.service_client import ServiceClient
from distillkit_builtin.vllm.token_completions import TokenCompletions, weight_versions

ASKED_AFTERWARDS = (
    "completions are asked for at /v1/completions, whose answers do not say which weights sampled them; those of vLLM "
    f"0.32 or newer with --enable-scale-out do ({TokenCompletions.path})"
)


class FoundForm(NamedTuple):
    """How servers are asked."""

    form: CompletionForm
    base_versions: Mapping[str, str] = frozen({})
    """What each server called its base model's weights when the run started; empty where answers do not say it."""


@dataclass(frozen=True, slots=True)
class FormProbe:
    """The first question of all."""

    client: ServiceClient
    model: str
    """The base model's name at the servers."""
    request: SampleRequest

    async def found(self, tokenizer: Tokenizer | None, most: int | None, tell: Notify) -> FoundForm:
        """The token interface, if every server's answers say the versions of their weights; else `/v1/completions`.

        Args:
            tokenizer: the student's, which decodes the token interface's completions.
            most: how many logprobs of a position may be asked for; None: any number.
            tell: hears why where a server has the token interface and it does not work.
        """
        topk = self.request.wanted.get("topk", 0)
        if tokenizer is None or (topk and most is not None and topk >= most):  # which takes one more than is wanted
            return FoundForm(Completions())
        form, versions = TokenCompletions(tokenizer), {}
        for root in self.client.roots:
            try:
                versions[root] = await self._version(root, form)
            except RefusedError as error:
                if error.status not in NOT_OFFERED:
                    tell(
                        f"{root}: {ASKED_AFTERWARDS}: it answered {error.status}: {error.message}"
                        f"{refused_field(error.message)}"
                    )
                return FoundForm(Completions())
            except AlignmentError as error:
                tell(f"{root}: {ASKED_AFTERWARDS}: {error}")
                return FoundForm(Completions())
        return FoundForm(form, frozen(versions))

    async def _version(self, root: str, form: TokenCompletions) -> str:
        """What a server calls its weights. Raises RefusedError, AlignmentError, InputError for no completion."""
        body = (await self.client.post_to(root, form.path, form.payload(self.request, self.model))).value
        sampled = form.parse(body, self.request, self.model, 0)
        if isinstance(sampled, Failure):
            raise InputError(f"{root}: {sampled.reason}")
        what = f"completion {self.request.key}"
        return only_version(weight_versions(body, what), what)
