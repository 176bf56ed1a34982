"""The fields of requests against SGLang's source, and what a real server fills in where one is left out."""

import ast
import asyncio
import subprocess
from pathlib import Path

import httpx
import pytest

from distillkit.arrays import token_ids
from distillkit.errors import InputError
from distillkit.probe.sampling_test import SamplingTest, untouched_sampling
from distillkit.testing import make_context
from distillkit.types import SampleKey, SampleRequest, SamplingParams
from distillkit_builtin.http.sglang_completions import SGLangCompletions
from distillkit_builtin.remote.generate_fields import GENERATE, GENERATE_BODY, GENERATE_BODY_UNSENT, GENERATE_UNSENT
from distillkit_builtin.sglang.sampler import SGLangSampler
from distillkit_loopback.openai.sglang_bodies import GenerateBody, GenerateParams
from servers.server_process import running
from servers.sglang.sglang_process import SGLangProcess

pytestmark = pytest.mark.servers
INTERNAL = frozenset(
    {
        *("stop_strs", "stop_regex_strs", "stop_str_max_len", "stop_regex_max_len", "is_normalized"),
        "ebnf_full_assistant",
    }
)
"""Fields of SamplingParams that SGLang fills in itself, and refuses in requests."""


def fields_of(module: str, name: str) -> set[str]:
    """The fields of a class in SGLang's source."""
    where = "import importlib.util as u; print(u.find_spec('sglang').submodule_search_locations[0])"
    package = Path(subprocess.check_output([SGLangProcess.python, "-c", where], text=True).strip())
    tree = ast.parse((package / "srt" / module).read_text(encoding="utf-8"))
    (found,) = [n for n in tree.body if isinstance(n, ast.ClassDef) and n.name == name]
    return {n.target.id for n in found.body if isinstance(n, ast.AnnAssign) and isinstance(n.target, ast.Name)}


def test_every_sampling_field_is_known() -> None:
    """The tables of fields are of a version; the next one may have a field more, whose default is not neutral."""
    theirs = fields_of("sampling/sampling_params.py", "SamplingParams") - INTERNAL
    assert {"temperature", "top_k", "repetition_penalty"} <= theirs
    assert theirs == {*GENERATE, *GENERATE_UNSENT, "max_new_tokens"}
    assert theirs == set(GenerateParams.model_fields)


def test_every_field_around_them_is_known() -> None:
    theirs = fields_of("managers/io_struct.py", "GenerateReqInput")
    asked = {"input_ids", "sampling_params", "return_logprob", "logprob_start_len", "top_logprobs_num"}
    assert {*GENERATE_BODY, *asked} <= theirs
    assert theirs <= {*GENERATE_BODY, *GENERATE_BODY_UNSENT, *asked}
    assert set(GenerateBody.model_fields) <= theirs


async def test_what_a_server_prefers_changes_no_completion(server: SGLangProcess) -> None:
    """`--preferred-sampling-params` count for what requests leave out, which our requests do not."""
    named = await asyncio.to_thread(measured, server, None)
    left_out = await asyncio.to_thread(measured, server, frozenset({"max_new_tokens"}))
    assert named.untouched, named.finding
    assert not left_out.untouched, "this SGLang fills in nothing: the test shows nothing any more"


def measured(server: SGLangProcess, names: frozenset[str] | None) -> SamplingTest:
    """The test of 3 x 64 first tokens by our requests, or only with their sampling fields of these `names`."""
    groups = []
    form = SGLangCompletions()
    with httpx.Client(base_url=server.root, timeout=120) as client:
        for prompt in ([1, 2, 3, 4], [1, 2, 3, 4] * 4, [100, 2000, 3000]):
            group = []
            for seed in range(64):
                request = SampleRequest(SampleKey("r", 0, seed), token_ids(prompt), seed, SamplingParams(1))
                body = form.payload(request, "smol")
                params = body["sampling_params"]
                assert isinstance(params, dict)
                if names is not None:
                    body["sampling_params"] = {name: params[name] for name in names}
                answer = client.post(form.path, json=body).raise_for_status().json()
                group.append((answer["output_ids"][0], answer["meta_info"]["output_token_logprobs"][0][0]))
            groups.append(group)
    return untouched_sampling(groups)


async def test_a_server_that_was_not_told_to_report_raw_logprobs_is_refused(model: Path, tmp_path: Path) -> None:
    server = SGLangProcess(model, tmp_path / "tempered.log", raw=False)
    with running(server):
        sampler = SGLangSampler(base_url=server.root)
        run = make_context()
        sampler.check(run)
        with pytest.raises(InputError, match=r"differ by \d+\.\d\d nats .* SGLANG_RETURN_ORIGINAL_LOGPROB=1"):
            await sampler.open(run)
