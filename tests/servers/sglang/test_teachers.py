"""The demo's model on a real SGLang as teachers are served: without adapters, and with its own default logprobs."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from distillkit.errors import InputError
from distillkit.testing import make_context
from distillkit_builtin.sglang.sampler import SGLangSampler
from servers.scoring import require_local_scores, require_stops
from servers.server_process import running
from servers.sglang.sglang_process import SGLangProcess

pytestmark = pytest.mark.servers


@pytest.fixture(scope="module")
def smol_server(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[SGLangProcess]:
    server = SGLangProcess(model, tmp_path_factory.mktemp("sglang-smol") / "server.log", raw=False)
    with running(server):
        yield server


@pytest.mark.parametrize("dialect", ["sglang", "auto"])
async def test_scores_are_those_of_the_local_backend(smol_server: SGLangProcess, model: Path, dialect: str) -> None:
    await require_local_scores(smol_server.root, model, dialect)


async def test_stop_ids_and_stop_strings_end_a_teachers_completions_and_stay_in_them(
    smol_server: SGLangProcess, model: Path
) -> None:
    await require_stops(smol_server.root, model)


async def test_a_sampler_that_was_not_told_to_report_raw_logprobs_is_refused(smol_server: SGLangProcess) -> None:
    sampler, run = SGLangSampler(base_url=smol_server.root), make_context()
    sampler.check(run)
    with pytest.raises(InputError, match=r"differ by \d+\.\d\d nats .* SGLANG_RETURN_ORIGINAL_LOGPROB=1"):
        await sampler.open(run)
