"""A base student, whose completions end with another token than its instruct teacher's turns, as SmolLM2's do."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from conftest import question, read_jsonl
from helpers.tiny_models import write_model, write_tokenizer
from pydantic import PrivateAttr
from transformers import AutoModelForCausalLM

import distillkit
from builtin.http.serving import bodies
from builtin.local.conftest import plain_logprobs
from distillkit import Batch, Datum, EvalContext, EvalResult, Evaluator, Registry, RunConfig, ScoredRollout
from distillkit.arrays import token_ids
from distillkit.errors import InputError
from distillkit.preflight.prepared_run import prepare_run
from distillkit_builtin.local.model.causal_lm import PromptAndResponse
from distillkit_builtin.losses.importance_sampling import ImportanceSampling
from distillkit_loopback.openai.network_model import NetworkModel
from distillkit_loopback.openai.server import LoopbackServer

ENDOFTEXT, IM_START, IM_END = range(3)
LOCAL = {"name": "local", "dtype": "float32", "device": "cpu"}
Records = Sequence[dict[str, Any]]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Ends with <|endoftext|>, and its chat template writes <|im_end|>."""
    return write_model(tmp_path_factory.mktemp("base"), eos="<|endoftext|>")


@pytest.fixture
def make(local_config: Callable[..., RunConfig], base: str, other_tiny_model: str) -> Callable[..., RunConfig]:
    """One step of sixteen completions, most of which end by themselves; all of them are in samples.jsonl."""

    def made(turn_end: str = "same", student: dict[str, Any] | None = None, **over: Any) -> RunConfig:
        teacher = {"model": other_tiny_model, "route_value": "t", "scorer": LOCAL, "turn_end": turn_end}
        values = {
            "teachers": [teacher],
            "train": {"prompt_groups_per_step": 8, "max_steps": 1, "samples_per_route": 64},
            **over,
        }
        sampling = {"completions_per_prompt": 6, "max_completion_tokens": 32, **over.get("sampling", {})}
        return local_config(**values | {"student": {"model": base, **(student or {})}, "sampling": sampling})

    return made


def records(config: RunConfig) -> Records:
    return read_jsonl(distillkit.run(config).run_dir / "samples.jsonl")


@pytest.fixture
def reference(other_tiny_model: str) -> Callable[..., np.ndarray]:
    """The teacher's logprobs of a response's ids behind a prompt, by transformers alone."""
    network = AutoModelForCausalLM.from_pretrained(other_tiny_model, dtype=torch.float32, attn_implementation="eager")

    @torch.no_grad()
    def logprobs(prompt: np.ndarray, response: Sequence[int]) -> np.ndarray:
        return plain_logprobs(network, PromptAndResponse(prompt, token_ids(np.array(response)))).numpy()

    return logprobs


def test_it_is_refused_before_anything_is_loaded(make: Callable[..., RunConfig]) -> None:
    with pytest.raises(InputError, match=r"teacher 't' ends its turns with '<\|im_end\|>' \(id 2\).*'<\|endoftext\|>'"):
        prepare_run(make(), Registry.discover(), lambda message: None)


class Recording(ImportanceSampling):
    """Keeps what is trained."""

    name: ClassVar[str] = "recording"
    _datums: list[Datum] = PrivateAttr(default_factory=list)

    def batch(self, scored: Sequence[ScoredRollout]) -> Batch:
        batch = super().batch(scored)
        kept = zip(batch.datums, scored, strict=True)
        self._datums += [
            replace(datum, inputs={**datum.inputs, "sampling_logprobs": one.rollout.logprobs}) for datum, one in kept
        ]
        return batch


def as_teacher(ids: Sequence[int]) -> list[int]:
    return [{ENDOFTEXT: IM_END, IM_END: ENDOFTEXT}.get(index, index) for index in ids]


@pytest.mark.parametrize("forward", ["plain", "auto"])
def test_with_a_map_the_teacher_scores_the_students_end_as_its_own(
    make: Callable[..., RunConfig], reference: Callable[..., np.ndarray], forward: str
) -> None:
    loss = Recording()
    distillkit.run(make("map", {"forward": forward}, loss=loss))
    ended = 0
    for datum in loss._datums:
        ids = datum.response_ids.tolist()
        assert ENDOFTEXT not in ids[:-1]
        assert len(ids) == 32 or ids[-1] == ENDOFTEXT
        ended += ids[-1] == ENDOFTEXT
        expected = reference(datum.prompt_ids, as_teacher(ids)) - datum.inputs["sampling_logprobs"]
        np.testing.assert_allclose(datum.inputs["advantages"], expected, atol=1e-3)
    assert 3 <= ended < len(loss._datums)  # and some are cut at the limit, and have no end
    assert any(IM_END in datum.response_ids for datum in loss._datums)


@pytest.mark.parametrize("forward", ["plain", "auto"])
@pytest.mark.parametrize("sampling", [{"stop_ids": (IM_END,)}, {"stop": ("<|im_end|>",)}])
def test_with_the_teachers_end_as_a_stop_completions_end_there_too(
    make: Callable[..., RunConfig], reference: Callable[..., np.ndarray], sampling: dict[str, Any], forward: str
) -> None:
    loss = Recording()
    distillkit.run(make(student={"forward": forward}, loss=loss, sampling=sampling))
    last = [int(datum.response_ids[-1]) for datum in loss._datums]
    assert {ENDOFTEXT, IM_END} <= set(last)
    for datum in loss._datums:
        ids = datum.response_ids.tolist()
        assert not {ENDOFTEXT, IM_END} & set(ids[:-1])
        expected = reference(datum.prompt_ids, ids) - datum.inputs["sampling_logprobs"]
        np.testing.assert_allclose(datum.inputs["advantages"], expected, atol=1e-3)


@pytest.fixture
def served(base: str) -> Iterator[LoopbackServer]:
    with LoopbackServer(NetworkModel.load(base)) as server:
        yield server


def test_a_server_ends_completions_where_the_local_sampler_does(
    make: Callable[..., RunConfig], served: LoopbackServer
) -> None:
    remote = {"sampler": {"name": "vllm", "base_url": served.url}}
    stops = {"stop_ids": (97,), "stop": ("<|im_end|>", "ab")}
    few = {"completions_per_prompt": 2, "max_completion_tokens": 24, **stops}
    local = records(make(sampling=few))
    there = records(make(student=remote, sampling=few, name="remote"))
    assert [each["token_ids"] for each in local] == [each["token_ids"] for each in there]
    assert [each["finish_reason"] for each in local] == [each["finish_reason"] for each in there]
    assert {each["finish_reason"] for each in there} == {"stop", "length"}
    assert any(each["token_ids"][-1] == IM_END for each in there)
    asked = {tuple(body["stop_token_ids"]) for body in bodies(served) if body.get("stop_token_ids")}
    assert asked == {(ENDOFTEXT, 97, IM_END)}


def test_a_served_teacher_scores_the_students_end_as_its_own(
    make: Callable[..., RunConfig], other_tiny_model: str
) -> None:
    """Echoed ids are compared with those that the teacher is to read."""
    with LoopbackServer(NetworkModel.load(other_tiny_model), name=other_tiny_model) as server:
        scorer = {"name": "http", "base_url": server.url}
        section = {"model": other_tiny_model, "route_value": "t", "scorer": scorer, "turn_end": "map"}
        here, there = records(make("map")), records(make(teachers=[section], name="remote"))
    ended = 0
    for local, remote in zip(here, there, strict=True):
        assert local["token_ids"] == remote["token_ids"]
        assert local["teacher_logprobs"]["t"] == pytest.approx(remote["teacher_logprobs"]["t"], abs=1e-3)
        assert remote["ids_proved"] == {"t": True}
        ended += remote["token_ids"][-1] == ENDOFTEXT
    assert ended >= 3


class Looks(Evaluator):
    """Has the teacher write, and scores what is written under both."""

    name: ClassVar[str] = "looks"
    _seen: dict[str, Any] = PrivateAttr(default_factory=dict)

    async def evaluate(self, context: EvalContext) -> EvalResult:
        written = await context.sample_teacher("t")
        own = await context.rollouts()
        assert written is not None
        self._seen = {
            "written": written,
            "by_student": await context.score(written),
            "by_teacher": await context.score(written, teacher="t"),
            "own": own,
            "own_by_student": await context.score(own),
            "own_by_teacher": await context.score(own, teacher="t"),
        }
        return EvalResult({})


def test_evaluators_get_the_students_ids_whoever_wrote_and_whoever_scores(
    make: Callable[..., RunConfig], reference: Callable[..., np.ndarray], jsonl: Callable[..., str]
) -> None:
    looks = Looks()
    held_out = jsonl([question(f"held out {i}") for i in range(24)], "heldout.jsonl")
    rows = make("map").data.path
    distillkit.run(make("map", evaluators=[looks], data={"path": rows, "eval_path": held_out, "max_rows": 1}))
    seen = looks._seen
    for scores in (seen["by_student"], seen["by_teacher"], seen["own_by_student"], seen["own_by_teacher"]):
        assert len(scores) == 24
    for rollout, by_student, by_teacher in zip(seen["written"], seen["by_student"], seen["by_teacher"], strict=True):
        assert by_student.request.token_ids is by_student.request.rollout.token_ids
        np.testing.assert_allclose(by_teacher.logprobs, rollout.logprobs, atol=1e-3)  # as it wrote them
    assert {rollout.request.params.stop_ids for rollout in seen["written"]} == {(IM_END, ENDOFTEXT)}
    assert sum(rollout.token_ids[-1] == ENDOFTEXT for rollout in seen["written"]) >= 2
    assert any(rollout.token_ids[-1] == ENDOFTEXT for rollout in seen["own"])
    for rollout, score in zip(seen["own"], seen["own_by_teacher"], strict=True):
        expected = reference(rollout.request.prompt_ids, as_teacher(rollout.token_ids.tolist()))
        np.testing.assert_allclose(score.logprobs, expected, atol=1e-3)


def test_a_student_of_the_teachers_family_needs_nothing(local_config: Callable[..., RunConfig]) -> None:
    prepared = prepare_run(local_config(), Registry.discover(), lambda message: None)
    assert prepared.ending_ids == {IM_END}
    assert not prepared.turn_ends.of


def test_a_tokenizer_from_elsewhere_does_not_hide_where_the_model_ends(
    make: Callable[..., RunConfig], base: str, tmp_path: Path
) -> None:
    write_tokenizer(tmp_path / "tokenizer")  # ends with <|im_end|>; the model's configs with <|endoftext|>
    config = make(student={"tokenizer_model": str(tmp_path / "tokenizer")})
    assert prepare_run(config, Registry.discover(), lambda message: None).ending_ids == {ENDOFTEXT, IM_END}
