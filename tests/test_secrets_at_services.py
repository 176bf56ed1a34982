"""No secret that a training service repeats is in anything that a run writes or prints."""

from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from helpers.loud_commands import PASSWORD, distillkit, prepare, write
from helpers.secret_markers import SECRETS


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return prepare(tmp_path)


# -- Fireworks

KEY = SECRETS["FIREWORKS_API_KEY"]
STUDENT, TEACHER = "accounts/fireworks/models/student", "accounts/fireworks/models/teacher"
SHAPE = "accounts/fireworks/trainingShapes/tiny"
BAD_KEY = f"Invalid API key {KEY} in Authorization: Bearer {KEY}; x-api-key: {KEY}"


def of_fireworks(folder: Path, name: str, base_url: str, tokenizer: str, **scorer: Any) -> str:
    """A config of student and teacher at one service."""
    student = {"name": "fireworks", "model": STUDENT, "tokenizer_model": tokenizer}
    teacher = {"model": TEACHER, "scorer": {"name": "fireworks", "base_url": base_url, **scorer}}
    student |= {"trainer": {"training_shape_id": SHAPE}, "lora_rank": 4, "base_url": base_url}
    sections = {"student": student, "teachers": [teacher]}
    return write(folder, name, **sections, sampling={"max_completion_tokens": 4}, train={"prompt_groups_per_step": 4})


@pytest.mark.slow
def test_a_key_that_fireworks_repeats_goes_nowhere(folder: Path, tiny_model: str) -> None:
    pytest.importorskip("fireworks.training.sdk")
    from distillkit_loopback.fireworks.service import LoopbackService
    from distillkit_loopback.transport.faults import Status

    failing: Mapping[str, tuple[str, Status] | None] = {
        "fine": None,
        "training": ("POST .*/forward_backward$", Status(400, message=BAD_KEY)),
        "cut-off": ("POST .*/completions$", Status(400, message="z" * 285 + KEY)),
        "making": ("POST .*obs", Status(400, message=BAD_KEY)),
    }
    with ExitStack() as stack:
        commands = []
        for name, failure in failing.items():
            service = stack.enter_context(LoopbackService({STUDENT: tiny_model, TEACHER: tiny_model}, api_key=KEY))
            if failure is not None:
                where, fault = failure
                service.faults.add(fault, times=None, where=where)
            commands.append(["run", of_fireworks(folder, name, service.base_url, tiny_model)])
        other = stack.enter_context(LoopbackService({STUDENT: tiny_model, TEACHER: tiny_model}, api_key="another"))
        commands.append(["check", of_fireworks(folder, "other", other.base_url, tiny_model)])
        with_password = f"http://me:{PASSWORD}@host"
        commands.append(["run", of_fireworks(folder, "address", with_password, tiny_model)])
        inference = {"inference_url": with_password}
        commands.append(["run", of_fireworks(folder, "inference", other.base_url, tiny_model, **inference)])
        done = distillkit(folder, commands, fireworks="yes")
    assert done.codes == [0, 1, 1, 1, 2, 2, 2]
    assert not done.leaks()
    assert b"Invalid API key ***" in done.printed
    assert b"_base_client" in done.printed or b"Request options" in done.printed  # the SDK was loud


# -- Tinker


def of_tinker(folder: Path, name: str, base_url: str, tokenizer: str) -> str:
    """A config of student and teacher at one service."""
    student = {"name": "tinker", "model": "org/student", "tokenizer_model": tokenizer, "lora_rank": 4}
    scorer = {"name": "tinker", "base_url": base_url}
    teachers = [{"model": "org/teacher", "tokenizer_model": tokenizer, "scorer": scorer}]
    sections: dict[str, Any] = {"student": {**student, "base_url": base_url}, "teachers": teachers}
    return write(folder, name, **sections, sampling={"max_completion_tokens": 4}, train={"prompt_groups_per_step": 4})


@pytest.mark.slow
def test_a_key_that_a_tinker_server_repeats_goes_nowhere(folder: Path, tiny_model: str) -> None:
    pytest.importorskip("tinker")
    from distillkit_loopback.tinker.service import TinkerService
    from distillkit_loopback.transport.faults import Status

    key, models = SECRETS["TINKER_API_KEY"], {"org/student": tiny_model, "org/teacher": tiny_model}
    said = f"Invalid API key {key} in X-API-Key: {key}"
    failing: Mapping[str, tuple[str, Status, int] | None] = {
        "fine": None,
        "training": ("forward_backward$", Status(400, message=said), 1),
        "polling": ("retrieve_future$", Status(404, message=said), 12),
        "cut-off": ("asample$", Status(403, message="z" * 585 + key), 12),
        "checking": ("healthz$", Status(401, message=said), 0),
    }
    with ExitStack() as stack:
        commands = []
        for name, failure in failing.items():
            service = stack.enter_context(TinkerService(models, api_key=key))
            if failure is not None:
                where, fault, after = failure
                service.faults.add(fault, times=None, after=after, where=where)
            commands.append(["run", of_tinker(folder, name, service.base_url, tiny_model)])
        other = stack.enter_context(TinkerService(models, api_key="tml-another"))
        commands.append(["check", of_tinker(folder, "other", other.base_url, tiny_model)])
        commands.append(["run", of_tinker(folder, "address", f"http://me:{PASSWORD}@host", tiny_model)])
        done = distillkit(folder, commands)
    assert done.codes == [0, 1, 2, 1, 2, 2, 2]
    assert not done.leaks()
    assert b"Invalid API key ***" in done.printed
