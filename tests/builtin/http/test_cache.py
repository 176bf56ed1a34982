"""The cache of scores: what was asked once is not asked again, and nothing else is taken for it."""

import asyncio
import json
import multiprocessing
import sqlite3
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from loopback.openai.wire import COMPLETIONS, PROMPT, Serve

from builtin.http.cache_files import counted
from builtin.http.serving import RESPONSE, opened, outcomes, score_requests, scorer, truth
from distillkit.arrays import token_ids
from distillkit.errors import AlignmentError
from distillkit_builtin.http import score_file
from distillkit_builtin.http.cache import ScoreCache
from distillkit_builtin.http.dialects.dialect import ScoreQuery, TokenLogprobs
from distillkit_builtin.http.score_file import ScoreFile
from distillkit_loopback.openai import faults
from distillkit_loopback.openai.server import LoopbackServer


async def requests_for(server: LoopbackServer, path: str, *, model: str = "loopback", **change: Any) -> int:
    """How many requests three scores take, the probe not counted."""
    async with opened(scorer(server, model=model, cache=path)) as plugin:
        server.traffic.clear()
        for score in await outcomes(plugin, score_requests(3, **change)):
            wanted = truth(change.get("ids", RESPONSE), change.get("prompt", PROMPT))
            np.testing.assert_array_equal(score.logprobs, wanted)
            assert score.ids_proved
            assert bool(score.arrays) == ("topk" in change)
    return server.traffic.counts.get(COMPLETIONS, 0)


async def test_the_second_time_asks_nothing(serve: Serve, path: str) -> None:
    server = serve()
    assert await requests_for(server, path) > 0
    assert await requests_for(server, path) == 0
    assert await requests_for(serve(), path) == 0  # of the same name and root


@pytest.mark.parametrize("change", [{"topk": 2}, {"prompt": [*PROMPT, 1]}, {"ids": [*RESPONSE, 1]}], ids=str)
async def test_another_query_is_requested(serve: Serve, path: str, change: dict[str, Any]) -> None:
    server = serve()
    await requests_for(server, path)
    assert await requests_for(server, path, **change) > 0
    assert await requests_for(server, path, **change) == 0
    assert await requests_for(server, path) == 0


async def test_another_model_is_requested(serve: Serve, path: str) -> None:
    await requests_for(serve(), path)
    assert await requests_for(serve(name="other"), path, model="other") > 0


async def test_a_token_that_moves_from_prompt_to_response_makes_another_question(serve: Serve, path: str) -> None:
    server = serve()
    await requests_for(server, path)
    assert await requests_for(server, path, prompt=[*PROMPT, RESPONSE[0]], ids=RESPONSE[1:]) > 0


async def test_topk_comes_back_as_it_was(serve: Serve, path: str) -> None:
    server = serve()
    arrays = []
    for _ in range(2):
        async with opened(scorer(server, cache=path)) as plugin:
            (score,) = await outcomes(plugin, score_requests(topk=3))
        arrays.append(score.arrays)
    for name in ("topk_ids", "topk_logprobs"):
        assert arrays[0][name].dtype == arrays[1][name].dtype
        np.testing.assert_array_equal(arrays[0][name], arrays[1][name])


async def test_what_was_wrong_is_not_kept(serve: Serve, path: str) -> None:
    server = serve()
    for fault in (faults.BadLogprob(float("nan")), faults.BadLogprob(0.5), faults.Shorter(), faults.Status(400)):
        async with opened(scorer(server, cache=path)) as plugin:
            server.faults.add(fault, where=COMPLETIONS)
            if isinstance(fault, faults.Status):
                await outcomes(plugin, score_requests())
                continue
            with pytest.raises(AlignmentError):
                await outcomes(plugin, score_requests())
    with sqlite3.connect(path) as database:
        assert database.execute("select count(*) from scores").fetchone() == (0,)


async def test_it_is_read_with_ordinary_tools(serve: Serve, path: str) -> None:
    server = serve(name="smol")
    async with opened(scorer(server, model="smol", cache=path)) as plugin:
        await outcomes(plugin, score_requests(topk=1))
    with sqlite3.connect(path) as database:
        ((model, ids, count, best),) = database.execute(
            "select model, token_ids, json_array_length(logprobs), topk_ids from scores"
        )
    assert (model, json.loads(ids), count) == ("smol", RESPONSE, len(RESPONSE))
    assert [len(at) for at in json.loads(best)] == [1] * len(RESPONSE)


async def test_the_file_is_closed_after_the_last_thread_that_uses_it(path: str) -> None:
    file = ScoreFile(path, pytest.fail)
    await file.open()
    assert file._database is not None
    with file._lock:  # as a thread that is still at work after its task was cancelled
        closing = asyncio.ensure_future(file.close())
        await asyncio.sleep(0.05)
        assert not closing.done()
        file._database.execute(score_file.SELECT, ("x",))
    await closing
    assert await file.find("x") is None


async def test_hits_and_misses_are_counted(serve: Serve, path: str) -> None:
    async with opened(scorer(serve(), cache=path)) as plugin:
        for expected in ({"hits": 0, "misses": 1, "failed": 0}, {"hits": 1, "misses": 0, "failed": 0}):
            await outcomes(plugin, score_requests())
            assert counted(plugin) == expected
    async with opened(scorer(serve())) as plugin:
        assert counted(plugin) == {}


@pytest.mark.parametrize("what", ["root", "max_model_len", "weight_version"])
async def test_other_weights_under_the_same_name_are_requested_as_far_as_the_server_tells(
    serve: Serve, path: str, what: str
) -> None:
    await requests_for(serve(), path)
    other = serve(context_length=512) if what == "max_model_len" else serve()
    if what == "root":
        other.catalogue.base.name = "another-directory"
    if what == "weight_version":
        other.catalogue.weight_version = "step-7"
    assert await requests_for(other, path) > 0


async def test_when_the_server_was_started_makes_no_difference(serve: Serve, path: str) -> None:
    server = serve()
    for created in (1, 2):
        body = dict(server.catalogue.listing("vllm"))
        body["data"][0]["created"] = created
        server.faults.add(faults.Status(200, body=body), where="/v1/models")
        asked_for = await requests_for(server, path)
    assert asked_for == 0


def write(path: str, first: int) -> None:
    """Keep 50 answers, half of them those of another process too."""

    async def put() -> None:
        cache = await cache_at(path)
        for i in range(first, first + 50):
            await cache.put(
                ScoreQuery("m", token_ids([i]), token_ids([1, 2])), TokenLogprobs.of([1, 2], [-1.0, -i], None)
            )
        await cache.file.close()

    asyncio.run(put())


async def cache_at(path: str) -> ScoreCache:
    file = ScoreFile(path, pytest.fail)
    await file.open()
    return ScoreCache(file, "teacher", "teacher")


async def test_two_processes_may_write_at_once(path: str) -> None:
    Path(path).parent.mkdir()
    spawn = multiprocessing.get_context("spawn")
    writers = [spawn.Process(target=write, args=(path, first)) for first in (0, 25)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join(60)
    assert [writer.exitcode for writer in writers] == [0, 0]
    cache = await cache_at(path)
    for i in range(75):
        scored = await cache.get(ScoreQuery("m", token_ids([i]), token_ids([1, 2])))
        assert scored is not None
        assert scored.logprobs.tolist() == [-1.0, -i]
    assert await cache.get(ScoreQuery("m", token_ids([75]), token_ids([1, 2]))) is None
    await cache.file.close()
