"""The cache of scores: what was asked once is not asked again, and nothing else is taken for it."""

import json
import multiprocessing
import sqlite3
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from builtin.http.serving import COMPLETIONS, PROMPT, RESPONSE, Serve, answers, asked, opened, scorer, truth
from distillkit.errors import AlignmentError, InputError
from distillkit.types import token_ids
from distillkit_builtin.http.cache import ScoreCache
from distillkit_builtin.http.dialects.dialect import Question, Reading
from distillkit_builtin.http.loopback import faults
from distillkit_builtin.http.loopback.server import LoopbackServer


@pytest.fixture
def path(tmp_path: Path) -> str:
    return str(tmp_path / "caches" / "scores.sqlite")


async def requests_for(server: LoopbackServer, path: str, *, model: str = "loopback", **change: Any) -> int:
    """How many requests three scores take, the probe not counted."""
    topk = change.pop("topk", 0)
    async with opened(scorer(server, model=model, cache=path, topk=topk)) as plugin:
        server.traffic.clear()
        for score in await answers(plugin, asked(3, **change)):
            wanted = truth(change.get("ids", RESPONSE), change.get("prompt", PROMPT))
            np.testing.assert_array_equal(score.logprobs, wanted)
            assert score.ids_proved
            assert bool(score.arrays) == bool(topk)
    return server.traffic.counts.get(COMPLETIONS, 0)


async def test_the_second_time_asks_nothing(serve: Serve, path: str) -> None:
    server = serve()
    assert await requests_for(server, path) > 0
    assert await requests_for(server, path) == 0
    assert await requests_for(serve(), path) == 0  # of the same name and root


@pytest.mark.parametrize("change", [{"topk": 2}, {"prompt": [*PROMPT, 1]}, {"ids": [*RESPONSE, 1]}], ids=str)
async def test_another_question_is_asked(serve: Serve, path: str, change: dict[str, Any]) -> None:
    server = serve()
    await requests_for(server, path)
    assert await requests_for(server, path, **change) > 0
    assert await requests_for(server, path, **change) == 0
    assert await requests_for(server, path) == 0


async def test_another_model_is_asked(serve: Serve, path: str) -> None:
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
        async with opened(scorer(server, cache=path, topk=3)) as plugin:
            (score,) = await answers(plugin, asked())
        arrays.append(score.arrays)
    for name in ("topk_ids", "topk_logprobs"):
        assert arrays[0][name].dtype == arrays[1][name].dtype
        np.testing.assert_array_equal(arrays[0][name], arrays[1][name])


async def test_what_was_wrong_is_not_kept(serve: Serve, path: str) -> None:
    server = serve()
    for fault in (faults.BadLogprob(float("nan")), faults.BadLogprob(0.5), faults.Shorter(), faults.Status(400)):
        async with opened(scorer(server, cache=path)) as plugin:
            server.faults.next(fault, path=COMPLETIONS)
            if isinstance(fault, faults.Status):
                await answers(plugin, asked())
                continue
            with pytest.raises(AlignmentError):
                await answers(plugin, asked())
    with sqlite3.connect(path) as database:
        assert database.execute("select count(*) from scores").fetchone() == (0,)


async def test_it_is_read_with_ordinary_tools(serve: Serve, path: str) -> None:
    server = serve(name="smol")
    async with opened(scorer(server, model="smol", cache=path, topk=1)) as plugin:
        await answers(plugin, asked())
    with sqlite3.connect(path) as database:
        ((model, ids, count, best),) = database.execute(
            "select model, token_ids, json_array_length(logprobs), topk_ids from scores"
        )
    assert (model, json.loads(ids), count) == ("smol", RESPONSE, len(RESPONSE))
    assert [len(at) for at in json.loads(best)] == [1] * len(RESPONSE)


@pytest.mark.parametrize("what", ["text", "directory", "another table"])
async def test_a_file_that_is_no_cache_is_refused(serve: Serve, tmp_path: Path, what: str) -> None:
    path = tmp_path / "file"
    if what == "text":
        path.write_text("not a database, and long enough to be taken for a header of one" * 20)
    elif what == "directory":
        path.mkdir()
    else:
        with sqlite3.connect(path) as database:
            database.execute("create table scores (player text, points integer)")
    with pytest.raises(InputError, match=rf"cache {path}: .*; name another file, or remove this one"):
        async with opened(scorer(serve(), cache=str(path))):
            pass


def write(path: str, first: int) -> None:
    """Keep 50 answers, half of them those of another process too."""
    import asyncio

    async def put() -> None:
        cache = ScoreCache.open(path, "teacher")
        for i in range(first, first + 50):
            await cache.put(Question("m", token_ids([i]), token_ids([1, 2])), Reading.of([1, 2], [-1.0, -i], None))
        cache.close()

    asyncio.run(put())


async def test_two_processes_may_write_at_once(path: str) -> None:
    Path(path).parent.mkdir()
    spawn = multiprocessing.get_context("spawn")
    writers = [spawn.Process(target=write, args=(path, first)) for first in (0, 25)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join(60)
    assert [writer.exitcode for writer in writers] == [0, 0]
    cache = ScoreCache.open(path, "teacher")
    for i in range(75):
        reading = await cache.get(Question("m", token_ids([i]), token_ids([1, 2])))
        assert reading is not None
        assert reading.logprobs.tolist() == [-1.0, -i]
    assert await cache.get(Question("m", token_ids([75]), token_ids([1, 2]))) is None
    cache.close()
