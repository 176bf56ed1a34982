"""Teachers and rollouts on a real vLLM server: `make test-servers`."""

import ast
import asyncio
import json
import re
import shutil
import subprocess
import threading
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import httpx
import numpy as np
import pytest
from conftest import read_jsonl
from pydantic import PrivateAttr

import distillkit
from distillkit import RunConfig, Sink
from distillkit.arrays import token_ids
from distillkit.config.load import load_config
from distillkit.errors import InputError
from distillkit.events import Event, StepFinished
from distillkit.probe.sampling_test import SamplingTest, untouched_sampling
from distillkit.records import Rollout, Score, ScoreRequest
from distillkit.roles.scorer import Scorer
from distillkit.testing import make_context, make_rollout
from distillkit.types import Message, SampleKey, SampleRequest, SamplingParams, Teacher
from distillkit_builtin.hf_tokenizer import HFTokenizer
from distillkit_builtin.http.completions import completion_payload, parse_completion
from distillkit_builtin.http.scorer import HttpScorer
from distillkit_builtin.local.scorer import LocalScorer
from distillkit_builtin.remote.request_fields import COMPLETIONS, COMPLETIONS_UNSENT, TOKENS, TOKENS_UNSENT
from distillkit_builtin.vllm.sampler import VllmSampler
from distillkit_loopback.openai.bodies import CompletionBody, TokensParams
from servers.vllm_process import PYTHON, VllmProcess

pytestmark = pytest.mark.servers
TOP = Path(__file__).parents[2]
FLOAT32 = 5e-4
"""Nats: float32 on both sides, other kernels. Measured: 5e-5 at most over these texts."""
ANSWERS = ["The sky is blue.", "Because air scatters short waves more than long ones.\n\n1. Air\n2. Light", "no"]
PROMPTS = ["Why is the sky blue?", "Answer as a list of two. " * 20 + "Why?"]


async def scores(scorer: Scorer, requests: Sequence[ScoreRequest]) -> list[Score]:
    run = make_context(teachers=[scorer.teacher])
    scorer.check(run)
    run = replace(run, tokenizer=scorer.tokenizer(run))  # a student that reads the same ids, which the top-K are of
    await scorer.open(run)
    try:
        found = [outcome async for outcome in scorer.score(requests)]
    finally:
        await scorer.close()
        await run.shared.release(run.user)
    assert all(isinstance(outcome, Score) for outcome in found), found
    return sorted((outcome for outcome in found if isinstance(outcome, Score)), key=lambda score: score.request.key)


@pytest.mark.parametrize("dialect", ["prompt_logprobs", "echo"])
async def test_scores_are_those_of_the_local_backend(teacher_server: VllmProcess, model: Path, dialect: str) -> None:
    tokenizer = HFTokenizer.load(str(model))
    prompts = [token_ids(tokenizer.render([Message("user", text)], {})) for text in PROMPTS]
    answers = [tokenizer.encode(text) for text in ANSWERS]
    requests = [
        ScoreRequest(make_rollout(answer, sample=len(answers) * i + j), "smol", prompt, topk=3)
        for i, prompt in enumerate(prompts)
        for j, answer in enumerate(answers)
    ]
    remote = HttpScorer(base_url=teacher_server.url, dialect=dialect)  # type: ignore[arg-type]
    theirs = await scores(remote.bind(Teacher("smol", "smol", tokenizer_model=str(model))), requests)
    local = LocalScorer(device="cpu", dtype="float32").bind(Teacher("smol", str(model)))
    ours = await scores(local, requests)
    for mine, other in zip(ours, theirs, strict=True):
        assert other.ids_proved
        np.testing.assert_allclose(other.logprobs, mine.logprobs, atol=FLOAT32)
        best = other.arrays["topk_logprobs"]
        assert best.shape == (len(mine.logprobs), 3)
        assert np.all(np.diff(best, axis=1) <= 0)
        assert np.all(best[:, 0] >= other.logprobs)
        np.testing.assert_allclose(best, mine.arrays["topk_logprobs"], atol=FLOAT32)


async def test_stop_ids_and_stop_strings_end_completions_and_stay_in_them(
    teacher_server: VllmProcess, model: Path
) -> None:
    tokenizer = HFTokenizer.load(str(model))
    prompt = token_ids(tokenizer.render([Message("user", PROMPTS[0])], {}))
    scorer = HttpScorer(base_url=teacher_server.url).bind(Teacher("smol", "smol", tokenizer_model=str(model)))
    run = make_context(teachers=[scorer.teacher])
    scorer.check(run)
    run = replace(run, tokenizer=scorer.tokenizer(run))  # a student that reads the same ids, which the top-K are of
    await scorer.open(run)

    async def greedy(**params: Any) -> Rollout:
        sampling = SamplingParams(**{"max_tokens": 12, "temperature": 0.0, **params})
        (found,) = [one async for one in scorer.sample([SampleRequest(SampleKey("1-a", 0, 0), prompt, 7, sampling)])]
        assert isinstance(found, Rollout), found
        return found

    try:
        free = await greedy()
        ids = free.token_ids.tolist()
        at = next(at for at in range(3, 12) if ids[at] not in ids[:at])
        text = tokenizer.decode(ids[: at + 1])
        own = tokenizer.special_tokens()["<|im_end|>"]
        for params in (
            {"stop_ids": (own, ids[at])},
            {"stop_ids": (ids[at],), "max_tokens": at + 1},
            {"stop": (text[-6:],)},
            {"stop": (text[-6:],), "max_tokens": at + 1},
        ):
            cut = await greedy(**params)
            assert cut.token_ids.tolist() == ids[: at + 1]
            assert (cut.finish_reason, cut.text) == ("stop", text)
            np.testing.assert_allclose(cut.logprobs, free.logprobs[: at + 1], atol=FLOAT32)
        assert (await greedy(max_tokens=at + 1)).finish_reason == "length"
    finally:
        await scorer.close()
        await run.shared.release(run.user)


def demo(model: Path, tmp_path: Path, over: Sequence[str], **sections: Any) -> RunConfig:
    """The demo's config with the demo's model, and other plugins where they are named."""
    text = (TOP / "examples/routed_mopd/config.yaml").read_text(encoding="utf-8")
    config = tmp_path / "config.yaml"
    config.write_text(text.replace("HuggingFaceTB/SmolLM2-135M-Instruct", str(model)), encoding="utf-8")
    resolved, _ = load_config([config], [f"log_path={tmp_path}/runs/{{name}}", *over], extra=sections)
    return resolved


def http_teachers(server: VllmProcess, model: Path) -> list[dict[str, Any]]:
    return [
        {
            "model": "smol",
            "route_value": route,
            "teacher_messages_key": key,
            "tokenizer_model": str(model),
            "scorer": {"name": "http", "base_url": server.url},
        }
        for route, key in (("short", "teacher_messages"), ("list", "list_messages"))
    ]


def test_the_demo_with_both_teachers_over_http_reaches_its_target(
    teacher_server: VllmProcess, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(TOP)
    result = distillkit.run(demo(model, tmp_path, [], teachers=http_teachers(teacher_server, model)))
    before, after = result.eval["before"], result.eval["after"]
    assert after["reverse_kl"] < 0.6 * before["reverse_kl"]
    assert after["routes"]["short"]["pattern_rate"] > before["routes"]["short"]["pattern_rate"] + 0.3
    assert "teacher_rate" in after["routes"]["short"]
    assert (result.summary["failed_completions"], result.steps) == (0, 15)


SHORT = [
    "data.max_eval_rows=8",
    "sampling.max_completion_tokens=24",
    "train.prompt_groups_per_step=4",
    "evaluators=[reverse_kl]",
    "student.dtype=float32",  # as the server computes, also on a CPU that is fast in bfloat16
]


def test_a_student_that_samples_from_vllm_learns(
    student_server: VllmProcess, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(TOP)
    sampler = f"student.sampler={{name: vllm, base_url: '{student_server.url}'}}"
    result = distillkit.run(demo(model, tmp_path, [*SHORT, sampler, "train.max_steps=12"]))
    mismatches = [row["rollout/logprob_mismatch"] for row in result.metrics if "rollout/logprob_mismatch" in row]
    assert len(mismatches) == 12
    assert max(mismatches) < FLOAT32  # each step's adapter is the one that samples
    assert result.eval["after"]["reverse_kl"] < result.eval["before"]["reverse_kl"]


@pytest.mark.parametrize(("support", "scorer"), [("teacher_topk", "http"), ("student_topk", "local")])
def test_a_divergence_on_top_k_learns(
    teacher_server: VllmProcess,
    student_server: VllmProcess,
    model: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    support: str,
    scorer: str,
) -> None:
    """The teacher's top-K come from the teachers' server, or the student's from the one that samples."""
    monkeypatch.chdir(TOP)
    over = [*SHORT, f"student.sampler={{name: vllm, base_url: '{student_server.url}'}}", "train.max_steps=12"]
    over.append(f"loss={{name: divergence, support: {support}, k: 8}}")
    sections = {"teachers": http_teachers(teacher_server, model)} if scorer == "http" else {}
    result = distillkit.run(demo(model, tmp_path, over, **sections))
    assert (result.steps, result.summary["failed_completions"]) == (12, 0)
    assert result.eval["after"]["reverse_kl"] < result.eval["before"]["reverse_kl"]


async def test_a_samplers_top_k_are_those_of_the_local_backend(student_server: VllmProcess, model: Path) -> None:
    tokenizer = HFTokenizer.load(str(model))
    prompt = token_ids(tokenizer.render([Message("user", PROMPTS[0])], {}))
    sampling = SamplingParams(max_tokens=12, temperature=1.5)
    requests = [SampleRequest(SampleKey("1-a", 0, i), prompt, 7 + i, sampling, {"topk": 5}) for i in range(4)]
    client = httpx.AsyncClient(base_url=student_server.url, timeout=120)
    async with client:
        answers = [await client.post("/completions", json=completion_payload(one, "smol")) for one in requests]
    found = [
        parse_completion(a.raise_for_status().json(), r, "smol", 0) for a, r in zip(answers, requests, strict=True)
    ]
    rollouts = [one for one in found if isinstance(one, Rollout)]
    assert len(rollouts) == len(requests)
    local = LocalScorer(device="cpu", dtype="float32").bind(Teacher("smol", str(model)))
    ours = await scores(local, [ScoreRequest(one, "smol", prompt, topk=5) for one in rollouts])
    for rollout, score in zip(rollouts, ours, strict=True):
        np.testing.assert_allclose(rollout.arrays["topk_logprobs"], score.arrays["topk_logprobs"], atol=FLOAT32)


@pytest.mark.parametrize(
    ("which", "said"),
    [
        ("teacher_server", "400: .*requires the V2 model runner"),
        ("student_server", "403: Scale-out endpoints are disab"),
    ],
)
async def test_a_server_on_this_cpu_says_what_it_takes_and_is_asked_for_whole_prompts(
    which: str, said: str, model: Path, request: pytest.FixtureRequest
) -> None:
    """The CPU build has no V2 model runner; without --enable-scale-out the endpoint is disabled."""
    url, told = request.getfixturevalue(which).url, []
    run = make_context(notify=told.append)
    teacher = Teacher("smol", "smol", tokenizer_model=str(model))
    refused, asked = (
        HttpScorer(base_url=url, dialect="vllm_tokens").bind(teacher),
        HttpScorer(base_url=url).bind(teacher),
    )
    refused.check(run)
    with pytest.raises(InputError, match=f"{said}.*--enable-scale-out"):
        await refused.open(run)
    asked.check(run)
    await asked.open(run)
    assert asked.provenance()["dialect"] == "PromptLogprobs"
    await asked.close()
    await run.shared.release(run.user)
    if which == "teacher_server":
        assert re.search(f"whole prompts; .*{said}", *told)
    else:
        assert not told  # it is switched off there, and nobody asked for it


def fields_of(module: str, name: str) -> set[str]:
    """The fields of a class in vLLM's source."""
    where = [PYTHON, "-c", "import importlib.util as u; print(u.find_spec('vllm').submodule_search_locations[0])"]
    package = Path(subprocess.check_output(where, text=True).strip())
    tree = ast.parse((package / module).read_text(encoding="utf-8"))
    (found,) = [n for n in tree.body if isinstance(n, ast.ClassDef) and n.name == name]
    fields = {n.target.id for n in found.body if isinstance(n, ast.AnnAssign) and isinstance(n.target, ast.Name)}
    return {field for field in fields if not field.startswith("_")}


def test_every_field_of_its_token_requests_is_known() -> None:
    theirs = fields_of("sampling_params.py", "SamplingParams")
    ours = {"max_tokens", "prompt_logprob_token_ids", "prompt_logprob_start"}
    assert theirs <= {*TOKENS, *TOKENS_UNSENT, *ours}
    assert {*TOKENS, *ours} <= theirs
    assert set(TokensParams.model_fields) <= theirs


def test_every_field_of_its_requests_is_known() -> None:
    """The tables of fields are of versions; the next one may have a field more, whose default is not neutral."""
    theirs = fields_of("entrypoints/openai/completion/protocol.py", "CompletionRequest")
    assert {"temperature", "top_k", "repetition_penalty"} <= theirs
    assert theirs <= {*COMPLETIONS, *COMPLETIONS_UNSENT, "model", "prompt", "max_tokens"}
    assert theirs <= set(CompletionBody.model_fields)
    assert set(COMPLETIONS) <= theirs


GENERATION_CONFIG = {"top_k": 1, "repetition_penalty": 1.3}
"""Greedy, and less probable what was in the prompt: as strong as model files have it, or stronger."""
NO_SAMPLING_FIELD = frozenset({"model", "prompt", "max_tokens", "seed", "logprobs", "return_token_ids"})


@pytest.mark.parametrize("cached", [True, False], ids=["prefix cache", "no prefix cache"])
async def test_what_a_model_directory_says_of_sampling_changes_no_completion(
    model: Path, tmp_path: Path, cached: bool
) -> None:
    """vLLM takes a model's generation_config.json for what requests leave out, which our requests do not."""
    directory = tmp_path / "model"
    shutil.copytree(model, directory)
    config = directory / "generation_config.json"
    kept = json.loads(config.read_text()) if config.exists() else {}
    config.write_text(json.dumps({**kept, **GENERATION_CONFIG}))
    caching = "--enable-prefix-caching" if cached else "--no-enable-prefix-caching"
    server = VllmProcess(directory, tmp_path / "vllm.log", (caching,))
    server.start()
    try:
        server.wait()
        named = await asyncio.to_thread(measured, server, None)
        left_out = await asyncio.to_thread(measured, server, NO_SAMPLING_FIELD)
        assert named.untouched, named.finding
        assert not left_out.untouched, "this vLLM fills in nothing: the test shows nothing any more"
        sampler = VllmSampler(base_url=server.url)
        run = make_context()
        sampler.check(run)
        await sampler.open(run)  # measures it too, and finds nothing
        await sampler.close()
    finally:
        server.kill()


def measured(server: VllmProcess, names: frozenset[str] | None) -> SamplingTest:
    """The test of 3 x 64 first tokens by our requests, or only with their fields of these `names`."""
    groups = []
    with httpx.Client(base_url=server.url, timeout=120) as client:
        for prompt in ([1, 2, 3, 4], [1, 2, 3, 4] * 4, [100, 2000, 3000]):
            group = []
            for seed in range(64):
                request = SampleRequest(SampleKey("r", 0, seed), token_ids(prompt), seed, SamplingParams(1))
                body = completion_payload(request, "smol")
                if names is not None:
                    body = {name: body[name] for name in names}
                choice = client.post("/completions", json=body).raise_for_status().json()["choices"][0]
                group.append((choice["token_ids"][0], choice["logprobs"]["token_logprobs"][0]))
            groups.append(group)
    return untouched_sampling(groups)


class Killer(Sink):
    """Kills a server in the middle of the third step, and starts it again."""

    name: ClassVar[str] = "killer"
    _server: VllmProcess | None = PrivateAttr(None)
    _thread: threading.Thread | None = PrivateAttr(None)

    @classmethod
    def of(cls, server: VllmProcess) -> "Killer":
        killer = cls()
        killer._server = server
        return killer

    def emit(self, event: Event) -> None:
        if isinstance(event, StepFinished) and event.step == 2:
            self._thread = threading.Timer(1.0, self._kill)
            self._thread.start()

    def _kill(self) -> None:
        assert self._server is not None
        self._server.kill()
        self._server.start()


def test_a_server_that_is_killed_and_started_again_costs_nothing_but_time(
    student_server: VllmProcess, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(TOP)
    sampler = {"name": "vllm", "base_url": student_server.url, "timeouts": {"retry": 500.0}}
    student = {"name": "local", "model": str(model), "lora_rank": 8, "learning_rate": 1e-3, "sampler": sampler}
    killer = Killer.of(student_server)
    config = demo(model, tmp_path, [*SHORT, "train.max_steps=4"], student=student, sinks=[killer])
    result = distillkit.run(config)
    assert killer._thread is not None
    killer._thread.join()
    ledger = read_jsonl(result.run_dir / "ledger.jsonl")
    assert (result.steps, result.summary["failed_completions"]) == (4, 0)
    assert {entry["outcome"] for entry in ledger} == {"trained"}
    assert max(row.get("rollout/logprob_mismatch", 0.0) for row in result.metrics) < FLOAT32
    assert sum(row.get("concurrency/student/retries", 0.0) for row in result.metrics) > 0
