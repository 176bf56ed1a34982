import asyncio
from collections.abc import Callable

import pytest

from distillkit import RunConfig
from distillkit.cli import command_start
from distillkit.cli.command_start import start_command, tells
from distillkit.events import Notice
from distillkit.ranks import Rank


def test_notices_are_shown_with_their_kind_on_standard_error_unless_quiet(capsys: pytest.CaptureFixture[str]) -> None:
    for quiet in (False, True):
        tells(quiet=quiet)(Notice("as set"))
        tells(quiet=quiet)(Notice("likely wrong", "warning"))
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err.splitlines() == ["note: as set", "warning: likely wrong"]


def test_a_rank_without_the_engine_only_does_its_share(
    fake_config: Callable[..., RunConfig], monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[Rank] = []

    async def work(config: RunConfig, rank: Rank) -> None:
        await asyncio.sleep(0)
        done.append(rank)

    monkeypatch.setattr(command_start, "work_beside", work)
    assert start_command(fake_config(), Rank(0, 2), quiet=True) is not None
    assert done == []
    assert start_command(fake_config(), Rank(1, 2), quiet=True) is None
    assert done == [Rank(1, 2)]
