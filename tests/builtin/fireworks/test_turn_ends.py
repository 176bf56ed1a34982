"""A base student at Fireworks under an instruct teacher, whose turns end otherwise."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch
from conftest import read_jsonl
from helpers.tiny_models import write_model
from transformers import AutoModelForCausalLM

import distillkit
from builtin.fireworks.conftest import SHAPE, STUDENT, TEACHER
from builtin.fireworks.runs import make_config, teacher
from builtin.local.conftest import plain_logprobs
from distillkit import Registry
from distillkit.arrays import token_ids
from distillkit.errors import InputError
from distillkit.preflight.prepared_run import prepare_run
from distillkit_builtin.hf_tokenizer import HFTokenizer
from distillkit_builtin.local.model.causal_lm import PromptAndResponse

pytest.importorskip("fireworks.training.sdk")
pytestmark = pytest.mark.usefixtures("fast_polls")

if TYPE_CHECKING:
    from distillkit_loopback.fireworks.service import LoopbackService

ENDOFTEXT, IM_END = 0, 2


@pytest.fixture
def base(tmp_path: Path) -> str:
    return write_model(tmp_path / "base", eos="<|endoftext|>")


@pytest.fixture
def service(base: str, other_tiny_model: str) -> Iterator["LoopbackService"]:
    from distillkit_loopback.fireworks.service import LoopbackService

    with LoopbackService({STUDENT: base, TEACHER: other_tiny_model}) as running:
        yield running


@pytest.fixture
def options(service: "LoopbackService", other_tiny_model: str) -> dict[str, Any]:
    """Of one step of sixteen completions."""
    return {
        "teachers": [{**teacher(service, TEACHER), "tokenizer_model": other_tiny_model, "route_value": "t"}],
        "sampling": {"completions_per_prompt": 2, "max_completion_tokens": 32},
        "train": {"prompt_groups_per_step": 8, "max_steps": 1, "samples_per_route": 64},
        "student": {"trainer": {"training_shape_id": SHAPE}},
    }


def test_it_is_refused_before_anything_is_made(
    service: "LoopbackService", tmp_path: Path, base: str, options: dict[str, Any]
) -> None:
    with pytest.raises(InputError, match=r"teacher 't' ends its turns with '<\|im_end\|>'"):
        prepare_run(make_config(service, tmp_path, base, **options), Registry.discover(), lambda message: None)
    assert not service.jobs
    assert not service.deployments


@pytest.mark.parametrize("way", ["stop", "map"])
def test_each_way_out_works(
    service: "LoopbackService", tmp_path: Path, base: str, other_tiny_model: str, options: dict[str, Any], way: str
) -> None:
    over: dict[str, Any] = {"stop": {"sampling": {**options["sampling"], "stop": ["<|im_end|>"]}}}.get(way, {})
    if way == "map":
        over = {"teachers": [{**options["teachers"][0], "turn_end": "map"}]}
    result = distillkit.run(make_config(service, tmp_path, base, **{**options, **over}))
    network = AutoModelForCausalLM.from_pretrained(other_tiny_model, dtype=torch.float32)
    prompt_of = HFTokenizer.load(other_tiny_model).encode
    ends = {ENDOFTEXT, IM_END} if way == "stop" else {ENDOFTEXT}
    exchanged = {ENDOFTEXT: IM_END, IM_END: ENDOFTEXT} if way == "map" else {}
    ended = set()
    for record in read_jsonl(result.run_dir / "samples.jsonl"):
        ids = record["token_ids"]
        assert not ends & set(ids[:-1])
        ended |= {ids[-1]} & ends
        read = token_ids([exchanged.get(index, index) for index in ids])
        item = PromptAndResponse(token_ids(prompt_of(record["teacher_prompts"]["t"])), read)
        expected = plain_logprobs(network, item).tolist()
        assert record["teacher_logprobs"]["t"] == pytest.approx(expected, abs=1e-3)
    assert ended == ends
    sent = [request.body for request in service.requests if request.path.endswith("/completions")]
    stops = {tuple(body.get("stop") or ()) for body in sent if not body.get("echo")}
    assert stops == {("<|im_end|>",) if way == "stop" else ()}
    assert result.summary["failed_completions"] == 0
