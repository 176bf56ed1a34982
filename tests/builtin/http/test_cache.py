"""The cache of scores: what was asked once is not asked again, and nothing else is taken for it."""

import asyncio
import json
import multiprocessing
import re
import sqlite3
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from loopback.openai.wire import COMPLETIONS, PROMPT, Serve

from builtin.http.serving import RESPONSE, opened, outcomes, score_requests, scorer, truth
from distillkit.arrays import token_ids
from distillkit.errors import AlignmentError
from distillkit.testing import make_context
from distillkit_builtin.http import score_file
from distillkit_builtin.http.cache import ScoreCache
from distillkit_builtin.http.dialects.dialect import ScoreQuery, TokenLogprobs
from distillkit_builtin.http.score_file import ScoreFile
from distillkit_loopback.openai import faults
from distillkit_loopback.openai.server import LoopbackServer


@pytest.fixture
def path(tmp_path: Path) -> str:
    return str(tmp_path / "caches" / "scores.sqlite")


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


# What is wrong with the file costs the cache and nothing else


def no_cache(path: Path, what: str) -> None:
    if what == "text":
        path.write_text("not a database, and long enough to be taken for a header of one" * 20)
    elif what == "directory":
        path.mkdir()
    elif what == "in a file":
        path.parent.write_text("")
    else:
        with sqlite3.connect(path) as database:
            database.execute("create table scores (player text, points integer)")


@pytest.mark.parametrize(
    ("what", "said"),
    [
        ("text", "file is not a database; .*it is damaged, or no SQLite file: if it is only a cache, rm -f "),
        ("directory", "unable to open database file; .*let this user write to it and to its folder, or name another"),
        ("in a file", ".*File exists.*; name a file in a folder that can be written"),
        ("another table", "no such column: token_ids; .*it is no cache of scores, or one of another version: name"),
    ],
)
async def test_a_file_that_is_no_cache_is_said_once_and_done_without(
    serve: Serve, tmp_path: Path, what: str, said: str
) -> None:
    path, told = tmp_path / "folder" / "file", []
    if what != "in a file":
        path.parent.mkdir()
    no_cache(path, what)
    async with opened(scorer(serve(), cache=str(path)), make_context(notify=told.append)) as plugin:
        for score in await outcomes(plugin, score_requests(3)):
            np.testing.assert_array_equal(score.logprobs, truth())
        assert counted(plugin) == {"hits": 0, "misses": 0, "failed": 3}
    (message,) = told
    assert re.match(rf"cache {path}: {said}", message), message


def counted(plugin: Any) -> dict[str, float]:
    """The metrics of the cache since the last look."""
    slug = plugin.teacher.slug
    return {
        name.rpartition("/")[2]: value for name, value in plugin.metrics().items() if name.startswith(f"cache/{slug}/")
    }


def locked(file: ScoreFile) -> None:
    holder = sqlite3.connect(file.path, check_same_thread=False)
    holder.execute("begin exclusive")
    HOLDERS.append(holder)


def damaged(file: ScoreFile) -> None:
    """Whatever lies on the disk, and nothing is remembered of how it was."""
    assert file._database is not None
    for pragma in ("wal_checkpoint(truncate)", "cache_size = 0", "shrink_memory"):
        file._database.execute(f"pragma {pragma}").fetchall()
    size = Path(file.path).stat().st_size
    with Path(file.path).open("r+b") as bytes_of:
        bytes_of.write(b"x" * size)


HOLDERS: list[sqlite3.Connection] = []
BROKEN: list[tuple[Callable[[ScoreFile], Any], str]] = [
    (locked, "database is locked; .*another process has kept it locked for 0.05 s: end that, or name another file"),
    (
        lambda file: file._database.execute("pragma max_page_count = 1"),
        "database or disk is full; .*free some space on",
    ),
    (lambda file: file._database.execute("pragma query_only = 1"), "attempt to write a readonly database; .*let this"),
    (damaged, "(file is not a database|database disk image is malformed); .*it is damaged, .* rm -f "),
]


@pytest.mark.parametrize(("harm", "said"), BROKEN, ids=["locked", "full", "read-only", "damaged"])
async def test_a_file_that_breaks_in_a_run_is_said_once_and_done_without(
    serve: Serve, path: str, monkeypatch: pytest.MonkeyPatch, harm: Callable[[ScoreFile], Any], said: str
) -> None:
    monkeypatch.setattr(score_file, "BUSY_SECONDS", 0.05)
    server, told = serve(), []
    async with opened(scorer(server, cache=path), make_context(notify=told.append)) as plugin:
        await outcomes(plugin, score_requests(1, ids=[*RESPONSE, *range(200)]))  # so that it has some pages
        assert counted(plugin) == {"hits": 0, "misses": 1, "failed": 0}
        harm(plugin._live.cache.file)
        for _ in range(2):
            for prompt in ([*PROMPT, 1], [*PROMPT, 2]):  # new ones, which would be kept
                (score,) = await outcomes(plugin, score_requests(1, ids=RESPONSE * 100, prompt=prompt))
                np.testing.assert_array_equal(score.logprobs, truth(RESPONSE * 100, prompt))
        counts = counted(plugin)
    while HOLDERS:
        HOLDERS.pop().close()
    assert counts["failed"] >= 3
    assert counts["hits"] == 0
    (message,) = told
    assert re.match(rf"cache {path}: {said}", message), message


@pytest.mark.parametrize(
    ("column", "value", "said"),
    [
        ("logprobs", "[-1.0", "Invalid JSON"),
        ("logprobs", "[-1.0]", "holds 1 logprobs where 6 were expected"),
        ("logprobs", "[-1.0, -1.0, NaN, -1.0, -1.0, -1.0]", "finite number"),
        ("logprobs", "[-1.0, -1.0, 0.5, -1.0, -1.0, -1.0]", "a probability of more than one"),
        ("token_ids", "[80, 81, 7, 83, 200, 85]", "its ids are not those of the response"),
        ("topk_ids", "[[1], [2]]", "holds 2 lists of top-k tokens where 6"),
        ("topk_logprobs", None, "holds 0 lists of top-k tokens where 6"),
        ("topk_logprobs", "[[-1.0], [-1.0], [], [-1.0], [-1.0], [-1.0]]", "0 top-k tokens at a position where 1"),
    ],
)
async def test_a_damaged_score_is_not_taken_for_one(
    serve: Serve, path: str, column: str, value: str | None, said: str
) -> None:
    server, told = serve(), []
    async with opened(scorer(server, cache=path)) as plugin:
        await outcomes(plugin, score_requests(topk=1))
    with sqlite3.connect(path) as database:
        database.execute(f"update scores set {column} = ?", (value,))
    async with opened(scorer(server, cache=path), make_context(notify=told.append)) as plugin:
        (score,) = await outcomes(plugin, score_requests(topk=1))
    np.testing.assert_array_equal(score.logprobs, truth())
    (message,) = told
    assert said in message
    assert message.endswith(f"it is damaged: rm -f {path} {path}-wal {path}-shm")


async def test_teachers_of_one_run_share_the_file_and_its_one_warning(serve: Serve, tmp_path: Path) -> None:
    path, told = tmp_path / "file", []
    no_cache(path, "text")
    run = make_context(notify=told.append)
    async with (
        opened(scorer(serve(), cache=str(path)), run) as one,
        opened(scorer(serve(), cache=str(path)), replace(run, user="teachers.other.scorer")) as other,
    ):
        assert one._live.cache.file is other._live.cache.file
        await outcomes(one, score_requests())
        await outcomes(other, score_requests())
    assert len(told) == 1


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


# What makes another model


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
