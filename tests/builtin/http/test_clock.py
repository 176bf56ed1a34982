"""A clock that is set in the middle of a run: no request is given up or waited for because of it."""

from collections.abc import Callable

from loopback.openai.wire import COMPLETIONS, Serve

import distillkit
from builtin.http.runs import teacher
from distillkit import RunConfig
from distillkit_loopback.openai import faults


def test_timeouts_and_back_off_do_not_follow_the_date(
    jumping: list[float],
    serve: Serve,
    fake_config: Callable[..., RunConfig],
) -> None:
    server = serve()
    server.faults.add(faults.Status(503, retry_after=0.1), where=COMPLETIONS, after=3, times=2)
    server.faults.add(faults.Delay(0.3), where=COMPLETIONS, after=8, times=2)
    result = distillkit.run(fake_config(teachers=[teacher(server, timeouts={"request": 5.0})]))
    assert jumping
    assert result.summary["failed_completions"] == 0
    assert all(0.0 <= float(str(row[f"time/{phase}"])) < 10.0 for row in result.metrics for phase in ("score", "step"))
