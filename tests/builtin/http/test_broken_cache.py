"""A cache of scores that is no cache, is locked, damaged or full: said once, and done without."""

import re
import sqlite3
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from loopback.openai.wire import PROMPT, Serve

from builtin.http.cache_files import counted
from builtin.http.serving import RESPONSE, opened, outcomes, score_requests, scorer, truth
from distillkit.testing import make_context
from distillkit_builtin.http import score_file
from distillkit_builtin.http.score_file import ScoreFile


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
    async with opened(
        scorer(serve(), dialect="prompt_logprobs", cache=str(path)), make_context(notify=told.append)
    ) as plugin:
        for score in await outcomes(plugin, score_requests(3)):
            np.testing.assert_array_equal(score.logprobs, truth())
        assert counted(plugin) == {"hits": 0, "misses": 0, "failed": 3}
    (message,) = told
    assert re.match(rf"cache {path}: {said}", message), message


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
    async with opened(
        scorer(server, dialect="prompt_logprobs", cache=path), make_context(notify=told.append)
    ) as plugin:
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
    async with opened(scorer(server, dialect="prompt_logprobs", cache=path)) as plugin:
        await outcomes(plugin, score_requests(topk=1))
    with sqlite3.connect(path) as database:
        database.execute(f"update scores set {column} = ?", (value,))
    async with opened(
        scorer(server, dialect="prompt_logprobs", cache=path), make_context(notify=told.append)
    ) as plugin:
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
        opened(scorer(serve(), dialect="prompt_logprobs", cache=str(path)), run) as one,
        opened(
            scorer(serve(), dialect="prompt_logprobs", cache=str(path)), replace(run, user="teachers.other.scorer")
        ) as other,
    ):
        assert one._live.cache.file is other._live.cache.file
        await outcomes(one, score_requests())
        await outcomes(other, score_requests())
    assert len(told) == 1
