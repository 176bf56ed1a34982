"""The recipe's `main`: one run from `Config` to result."""

import os
import signal
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import distillkit
from distillkit.errors import DistillkitError, InputError
from distillkit.run_directory.checkpoint import checkpoints
from distillkit.run_directory.directory import holds_run, run_directory
from distillkit.run_directory.result import RunResult
from distillkit_builtin.fireworks.recipe.config import Config
from distillkit_builtin.fireworks.recipe.runner_files import RunnerFiles
from distillkit_builtin.fireworks.recipe.translate import Translation, translate
from distillkit_builtin.fireworks.recipe.uncaught import end_without_traceback

EXTRA_HEADERS = "FIREWORKS_API_EXTRA_HEADERS"


def main(
    config: Config,
    rlor_mgr: object | None = None,
    cancel_on_exit: bool = True,
    cleanup_on_exit: bool | None = None,
) -> dict[str, Any]:
    """Distil as `config` says; go on from the last checkpoint where `log_path` holds one. Works in a notebook too.

    The last lines that it prints say what was done; an error that nobody catches ends the program without a traceback.

    Args:
        config: the recipe's config.
        rlor_mgr: not used by the recipe either; must be None.
        cancel_on_exit: clean up in the end, however it comes, what the run made: delete the trainer, scale deployments
            to zero. False leaves all of it running, which costs money. (The cookbook's default is False.)
        cleanup_on_exit: the old name of `cancel_on_exit`.

    Returns:
        `steps`, `policy_job_id`, `deployment_id`, `eval` (what the last callback gave), `max_seq_len`,
        `training_shape_id` and `deployment_shape`.

    Raises:
        DistillkitError: `InputError`, naming the field, before anything is made; another child if the run fails.
        KeyboardInterrupt: on Ctrl-C, after the clean-up. Both stop at once, in the middle of a step: whoever sends a
            SIGTERM may not wait for one. What goes on is the last save (`dcp_save_interval`).
        SystemExit: on SIGTERM, likewise.
    """
    if cleanup_on_exit is not None:
        warnings.warn("main(cleanup_on_exit=...) is deprecated; use cancel_on_exit", DeprecationWarning, stacklevel=2)
        cancel_on_exit = cleanup_on_exit
    try:
        _require_honoured(rlor_mgr)
        run = translate(config, keep=not cancel_on_exit)
        with _sigterm_interrupts():
            done = distillkit.run(run.config, resume=_resumes(run_directory(run.config)))
    except DistillkitError as error:
        _say_of(error, config)
        raise
    return _report(config, run, done)


def _say_of(error: DistillkitError, config: Config) -> None:
    """Write a refusal into the runner's files; whoever catches no error reads its message alone."""
    if isinstance(error, InputError) and isinstance(config, Config):
        RunnerFiles.of(config.runner).refused(str(error))
    end_without_traceback(error)


def _require_honoured(rlor_mgr: object | None) -> None:
    if rlor_mgr is not None:
        raise InputError("rlor_mgr: cannot be honoured; the run makes and finds its trainer itself (trainer.job_id)")
    if os.environ.get(EXTRA_HEADERS, "").strip():
        raise InputError(f"{EXTRA_HEADERS} is set and cannot be honoured: no further headers are sent; unset it")


def _resumes(run_dir: Path) -> bool:
    """Whether there is a checkpoint to go on from. Raises InputError for a run without one."""
    if checkpoints(run_dir):
        return True
    if holds_run(run_dir):
        raise InputError(
            f"log_path: {run_dir} holds a run without a checkpoint, so it cannot go on; choose another log_path, or "
            "remove that folder (dcp_save_interval writes checkpoints on the way)"
        )
    return False


@contextmanager
def _sigterm_interrupts() -> Iterator[None]:
    """SIGTERM ends the run as Ctrl-C does, and then the process, as the recipe does it."""
    if threading.current_thread() is not threading.main_thread():
        yield  # only the main thread may listen to signals
        return
    received: list[int] = []

    def interrupt(number: int, frame: object) -> None:
        received.append(number)
        if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # as for what nohup or a shell runs in the background
            raise KeyboardInterrupt
        signal.raise_signal(signal.SIGINT)

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    except KeyboardInterrupt as error:
        if received:
            raise SystemExit("Terminated by SIGTERM") from error
        raise
    finally:
        signal.signal(signal.SIGTERM, before)


def _report(config: Config, run: Translation, done: RunResult) -> dict[str, Any]:
    """Say what was done; gives what `main` returns."""
    print(done.last_line, f"{done.adapter_path.name}: {done.adapter_path}", sep="\n", flush=True)
    service = run.log.service
    connection = None if service is None else service.connection
    if connection is None:
        raise AssertionError("a run that ended well had a trainer")
    return {
        "steps": done.steps,
        "policy_job_id": connection.trainer_job,
        "deployment_id": connection.deployment,
        "eval": dict(run.callbacks.latest),
        "max_seq_len": run.log.max_seq_len,
        "training_shape_id": config.trainer.training_shape_id,
        "deployment_shape": connection.deployment_shape,
    }
