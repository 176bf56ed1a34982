"""New weights into running servers of either kind, also into those that lost them: what is the same for all.

What only one kind does is tested with it.
"""

from collections.abc import Sequence
from typing import Any

import pytest

from builtin.http.serving import opened
from builtin.pushed.conftest import Kind
from builtin.vllm.pushes import require_sampled_by, sample, with_weights, with_weights_on
from distillkit.errors import RunFailedError
from distillkit.records import Weights
from distillkit.testing import make_context
from distillkit_loopback.openai import faults


async def test_each_version_is_an_adapter_of_a_new_name_and_the_old_one_is_unloaded(
    kind: Kind, adapters: Sequence[Weights]
) -> None:
    server, names = kind.start(), []
    async with opened(kind.sampler(server)) as plugin:
        for weights in adapters:
            await plugin.sync(weights)
            require_sampled_by(await sample(plugin), with_weights(weights), weights.version)
            assert list(server.catalogue.adapters.values()) == [str(weights.path)]
            names += server.catalogue.adapters
        assert plugin.metrics()["concurrency/student/window"] == 16
    assert not server.catalogue.adapters
    assert [name.rpartition("-")[2] for name in names] == ["v0", "v1", "v2"]
    assert set(kind.asked(server, kind.names_adapter)) - {"loopback", None} == set(names)
    assert not any(kind.asked(server, "cache_salt"))  # the adapter's name is in the cache's keys


async def test_a_server_that_was_restarted_gets_the_adapter_again(kind: Kind, adapters: Sequence[Weights]) -> None:
    server = kind.start()
    async with opened(kind.sampler(server)) as plugin:
        for weights in adapters:
            await plugin.sync(weights)
            server.stop()
            server.start()
            require_sampled_by(await sample(plugin, 8), with_weights(weights), weights.version)
    assert server.traffic.counts[kind.load] == 6  # once for all that were lost together


async def test_a_load_whose_response_was_lost_is_not_an_error(kind: Kind, adapters: Sequence[Weights]) -> None:
    server = kind.start()
    async with opened(kind.sampler(server)) as plugin:
        server.faults.add(faults.ShortBody(), where=kind.load)
        await plugin.sync(adapters[0])
        require_sampled_by(await sample(plugin), with_weights(adapters[0]), 0)
    assert server.traffic.counts[kind.load] == 2


async def test_an_adapter_that_is_gone_already_need_not_be_unloaded(kind: Kind, adapters: Sequence[Weights]) -> None:
    server, told = kind.start(), []
    async with opened(kind.sampler(server), make_context(notify=told.append)) as plugin:
        await plugin.sync(adapters[0])
        server.stop()
        server.start()
        await plugin.sync(adapters[1])
    assert told == []


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        (faults.Status(404, body={"detail": "Not Found"}), "answered 404: "),
        (faults.Status(400), "answered 400: injected fault"),
        (faults.Status(500), "answered 500: injected fault"),
    ],
)
async def test_a_server_without_runtime_adapters_says_how_to_start_it(
    kind: Kind, adapters: Sequence[Weights], fault: Any, said: str
) -> None:
    server = kind.start()
    async with opened(kind.sampler(server, timeouts={"retry": 0.1})) as plugin:
        server.faults.add(fault, where=kind.load, times=None)
        with pytest.raises(RunFailedError, match=r"policy version 0 \(.*v0\) could not be loaded at ") as caught:
            await plugin.sync(adapters[0])
    message = str(caught.value)
    assert f"at {server.url}: {said}" in message
    assert kind.how_to_start in message
    assert "--enable-lora --max-lora-rank N" in message


async def test_all_weights_are_replaced_in_place_under_a_label_and_a_salt_of_each_version(
    kind: Kind, models: Sequence[Weights]
) -> None:
    server = kind.start()
    async with opened(kind.sampler(server)) as plugin:
        for weights in models:
            await plugin.sync(weights)
            require_sampled_by(await sample(plugin), with_weights_on(models[: weights.version + 1]), weights.version)
            assert server.catalogue.weight_version.endswith(f"-v{weights.version}")
    assert set(kind.asked(server, kind.names_adapter)) <= {"loopback", None}
    salts = [salt.rpartition("-")[2] for salt in kind.asked(server, "cache_salt") if salt]
    assert salts == ["v0"] * 4 + ["v1"] * 4 + ["v2"] * 4


async def test_a_restarted_server_gets_all_weights_again_before_it_counts(
    kind: Kind, models: Sequence[Weights]
) -> None:
    server = kind.start(delay=0.005)
    async with opened(kind.sampler(server)) as plugin:
        await plugin.sync(models[0])
        server.stop()
        server.start()
        require_sampled_by(await sample(plugin, 12), with_weights(models[0]), 0)
    assert server.traffic.counts[kind.replace] == 2
