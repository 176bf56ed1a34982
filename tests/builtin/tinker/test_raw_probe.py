"""Which logprobs come with what a server samples, told by its own scores of the same tokens."""

import time
from collections.abc import Sequence
from concurrent.futures import Future
from types import SimpleNamespace
from typing import Any

import pytest

from builtin.tinker.plain_sdk import PLAIN_SDK
from distillkit.errors import InputError, RunFailedError
from distillkit_builtin.remote.admission import Admission
from distillkit_builtin.remote.aimd_window import AimdWindow
from distillkit_builtin.tinker.completions import Endpoint
from distillkit_builtin.tinker.raw_probe import reports_raw_logprobs


class Client:
    """Scores each token with -3, and says of sampled ones what `said` makes of the sampling parameters."""

    def __init__(self, said: Any) -> None:
        self.said = said

    def sample(self, prompt: Sequence[int], *, num_samples: int, sampling_params: dict[str, Any], **more: Any) -> Any:
        future: Future[Any] = Future()
        if more.get("include_prompt_logprobs"):
            future.set_result(SimpleNamespace(prompt_logprobs=[-3.0] * (len(prompt) - 1)))
            return future
        found = self.said(sampling_params)
        if isinstance(found, Exception):
            future.set_exception(found)
        elif found is not None:
            sequence = SimpleNamespace(tokens=[5, 6], stop_reason="length", logprobs=[found, -3.0])
            future.set_result(SimpleNamespace(sequences=[sequence]))
        return future


async def probed(said: Any, seconds: float = 5.0) -> bool:
    endpoint = Endpoint(PLAIN_SDK, Client(said), Admission(AimdWindow(4, 4, time.monotonic)), seconds)
    return await reports_raw_logprobs(endpoint, "student at http://there")


async def test_a_server_that_says_the_models_own_is_raw() -> None:
    assert await probed(lambda params: -3.1)


@pytest.mark.parametrize(("name", "value"), [("temperature", 0.3), ("temperature", 2.0), ("top_k", 1)])
async def test_one_that_says_another_distributions_anywhere_is_not(name: str, value: float) -> None:
    assert not await probed(lambda params: -1.0 if params[name] == value else -3.0)


async def test_one_whose_samples_are_not_what_it_scores_is_refused() -> None:
    with pytest.raises(InputError, match=r"^student at http://there: .* 2 nats from its own scores"):
        await probed(lambda params: -1.0)
    with pytest.raises(InputError, match=r"^student at http://there: a probe: the logprob of token 0 is nan"):
        await probed(lambda params: float("nan"))


async def test_one_that_does_not_answer_is_no_fault_of_the_config() -> None:
    with pytest.raises(RunFailedError, match=r"^student at http://there: .*within 0\.05 s \(timeouts\.request\)"):
        await probed(lambda params: None, 0.05)
    with pytest.raises(RunFailedError, match="engine died"):
        await probed(lambda params: RuntimeError("engine died"))
