"""The service misbehaves as ordered, and the real SDK sees it."""

import asyncio
import concurrent.futures
import math
import socket
import threading
import time

import httpx
import numpy as np
import pytest

pytest.importorskip("tinker")
import tinker
from tinker import types

from distillkit_loopback.tinker import faults
from distillkit_loopback.tinker.service import TinkerService
from distillkit_loopback.training.faults import Fails, NeverDone
from distillkit_loopback.transport.faults import Delay, Hangup, Status
from loopback.tinker.conftest import MODEL, Connect, Start
from loopback.tinker.sdk_calls import PROMPT, TIME, as_wire, completions, logprobs_of, sample, scores, train, trainer

SAMPLE = "asample$"
pytestmark = pytest.mark.filterwarnings("ignore:.*load_state.*:FutureWarning")  # what SDK 0.25 has, and SkyRL needs


def test_what_a_client_tries_again_comes_in_the_end_and_once(service: TinkerService, connect: Connect) -> None:
    client, data = trainer(connect(service)), completions()
    for fault in (Status(503), Status(429, retry_after=0.01), Hangup(), Hangup(applied=True), Delay(0.1)):
        service.faults.add(fault, where="(forward_backward|optim_step)$")
        train(client, data)
    assert [model.steps for model in service.models.values()] == [5]
    assert service.faults.pending == 0


@pytest.mark.parametrize(
    ("status", "error"),
    [
        (400, tinker.BadRequestError),
        (401, tinker.AuthenticationError),
        (403, tinker.PermissionDeniedError),
        (404, tinker.NotFoundError),
    ],
)
def test_a_refusal_is_said_at_once(
    service: TinkerService, connect: Connect, status: int, error: type[Exception]
) -> None:
    client, data = trainer(connect(service)), completions()
    service.faults.add(Status(status, message="not today"), where="optim_step$")
    with pytest.raises(error, match="not today"):
        client.optim_step(types.AdamParams()).result(TIME)
    train(client, data)
    assert [model.steps for model in service.models.values()] == [1]


def test_no_money_is_waited_for(service: TinkerService, connect: Connect) -> None:
    client = trainer(connect(service))
    service.faults.add(Status(402, message="add a card"), times=None, where="optim_step$")
    with pytest.raises(concurrent.futures.TimeoutError):
        client.optim_step(types.AdamParams()).result(0.3)
    service.faults.clear()


@pytest.mark.parametrize("category", ["server", "user"])
def test_an_operation_that_fails_says_whose_fault_it_is(
    service: TinkerService, connect: Connect, category: str
) -> None:
    client, data = trainer(connect(service)), completions()
    service.faults.add(Fails("out of memory", category), where="forward_backward$")  # type: ignore[arg-type]
    failed = client.forward_backward(as_wire(data), "importance_sampling")
    if service.kind == "hosted":
        with pytest.raises(tinker.RequestFailedError, match="out of memory") as caught:
            failed.result(TIME)
        assert caught.value.category.value == category
    else:
        with pytest.raises(ValueError, match=r"Error code: 400.*out of memory"):
            failed.result(TIME)
    train(client, data)


def test_an_operation_that_never_ends_stays_unfinished(service: TinkerService, connect: Connect) -> None:
    client = connect(service).create_sampling_client(base_model=MODEL).result(TIME)
    service.faults.add(NeverDone(), where=SAMPLE)
    pending = client.sample(types.ModelInput.from_ints(PROMPT), 1, types.SamplingParams(max_tokens=2))
    with pytest.raises(concurrent.futures.TimeoutError):
        pending.result(0.3)
    assert service.unfinished == 1
    assert sample(client).sequences


async def test_a_sample_that_is_given_up_is_cancelled_where_the_server_can(
    service: TinkerService, connect: Connect
) -> None:
    client = connect(service).create_sampling_client(base_model=MODEL).result(TIME)
    service.faults.add(NeverDone(), where=SAMPLE)
    pending = client.sample(types.ModelInput.from_ints(PROMPT), 1, types.SamplingParams(max_tokens=2)).future()
    while service.unfinished == 0:
        await asyncio.sleep(0.01)
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(asyncio.wrap_future(pending), 0.1)
    until = time.monotonic() + 5.0
    while service.kind == "hosted" and not service.cancelled and time.monotonic() < until:
        await asyncio.sleep(0.01)
    assert len(service.cancelled) == (1 if service.kind == "hosted" else 0)


def test_a_dead_server_is_a_closed_port_that_opens_again(start: Start, connect: Connect) -> None:
    service = start("skyrl")
    client = trainer(connect(service))
    path = client.save_state("a").result(TIME).path
    service.faults.add(faults.Dies(), where="optim_step$")
    with pytest.raises(concurrent.futures.TimeoutError):
        client.optim_step(types.AdamParams()).result(0.5)
    port = int(service.base_url.rpartition(":")[2])
    with socket.socket() as closed:
        assert closed.connect_ex(("127.0.0.1", port)) != 0
    service.start()
    assert (service.sessions, service.models, [*service.checkpoints]) == ({}, {}, [path])
    again = trainer(connect(service))
    again.load_state(path).result(TIME)


def test_logprobs_of_completions_and_scores_can_be_wrong(service: TinkerService, connect: Connect) -> None:
    client = connect(service).create_sampling_client(base_model=MODEL).result(TIME)
    right, scored = sample(client).sequences[0], scores(client, PROMPT)
    for fault in (faults.MissingLogprobs(), faults.FewerLogprobs(), faults.NaNLogprob(-2), faults.WrongIds(1)):
        service.faults.add(fault, where=SAMPLE)
        service.faults.add(fault, where=SAMPLE)
        completion, wrong = sample(client).sequences[0], scores(client, PROMPT)
        match fault:
            case faults.MissingLogprobs():
                assert (completion.logprobs, wrong) == (None, None)
            case faults.FewerLogprobs():
                assert (completion.logprobs, wrong) == ((right.logprobs or [])[:-1], scored[:-1])
            case faults.NaNLogprob():
                assert math.isnan((completion.logprobs or [])[-2])
                assert wrong[-2] is None  # as the SDK shows NaN
            case faults.WrongIds():
                assert (len(wrong), wrong != scored) == (len(scored), True)
    service.faults.add(faults.WrongIds(of="completion"), where=SAMPLE)
    other = sample(client).sequences[0]
    assert other.tokens != right.tokens
    assert other.logprobs == right.logprobs


def test_a_step_can_come_with_nan_and_without_logprobs(service: TinkerService, connect: Connect) -> None:
    client, data = trainer(connect(service)), completions()
    service.faults.add(faults.NaNLogprob(), where="forward_backward$")
    output, _ = train(client, data)
    assert np.isnan(np.array(output.loss_fn_outputs[0]["logprobs"].tolist())).all()
    if service.kind == "hosted":
        assert math.isnan(output.metrics["loss:sum"])
    service.faults.add(faults.FewerLogprobs(), where="forward_backward$")
    counts = [len(each["logprobs"].tolist()) for each in train(client, data)[0].loss_fn_outputs]
    assert counts == [len(each) - 1 for each in logprobs_of(client, data)]
    service.faults.add(faults.MissingLogprobs(), where="forward_backward$")
    assert all("logprobs" not in each for each in train(client, data)[0].loss_fn_outputs)


def test_a_checkpoint_vanishes(service: TinkerService, connect: Connect) -> None:
    client = trainer(connect(service))
    service.faults.add(faults.Vanishes(), where="save_weights$")
    path = client.save_state("a").result(TIME).path
    assert not service.checkpoints
    with pytest.raises(tinker.NotFoundError):
        trainer(connect(service)).load_state(path).result(TIME)
    kept = client.save_state("b").result(TIME).path
    service.delete(kept)
    assert not service.checkpoints


def test_a_promise_without_sequence_ids(service: TinkerService, connect: Connect) -> None:
    client = connect(service).create_sampling_client(base_model=MODEL).result(TIME)
    service.faults.add(faults.NoSequenceIds(), where=SAMPLE)
    with pytest.raises(AssertionError, match="sample_sequence_ids"):
        sample(client)


def test_a_closed_service_leaves_no_thread_and_no_file(start: Start, connect: Connect) -> None:
    before = set(threading.enumerate())  # other tests' services, which live as long as their fixtures
    service = start("hosted")
    folder = service._checkpoints._folder
    trainer(connect(service)).save_state("a").result(TIME)
    assert folder.exists()
    service.close()
    service.close()
    assert not folder.exists()
    left = set(threading.enumerate()) - before
    assert not [each for each in left if each.name.startswith("loopback")]
    with pytest.raises(httpx.ConnectError):
        httpx.get(service.base_url)
