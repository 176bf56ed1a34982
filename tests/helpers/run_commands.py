"""Several `distillkit` commands in one process, which imports everything once: `run_commands.py < commands.json`.

The terminal's encoding, the environment and the exit are those of a process of its own; exit codes go to a file.
"""

import json
import logging
import sys
from pathlib import Path

from distillkit.cli.main import app


def hurry() -> None:
    """Wait hundredths of a second where we ourselves, and the Fireworks SDK, wait seconds between two tries."""
    from distillkit_builtin.fireworks import control_plane
    from distillkit_builtin.remote import circuit_breaker, retries

    retries.FIRST_BACKOFF, retries.LONGEST_BACKOFF, circuit_breaker.FIRST_COOL_DOWN = 0.01, 0.05, 0.05
    control_plane.POLL_SECONDS = 0.05


def hurry_fireworks() -> None:
    """As above, in the SDK."""
    from fireworks.training.sdk import DeploymentManager, DeploymentSampler, errors
    from fireworks.training.sdk._core import _base_client

    errors._backoff_delay = lambda attempt, start, longest: 0.01 if attempt < 3 else None
    _base_client.INITIAL_RETRY_DELAY, _base_client.MAX_RETRY_DELAY = 0.005, 0.01
    DeploymentSampler._RETRY_BASE_BACKOFF_S, DeploymentSampler._RETRY_MAX_BACKOFF_S = 0.01, 0.02
    wait = DeploymentManager.wait_for_hotload
    wait.__defaults__ = (*wait.__defaults__[:-1], 0.05)
    # With TINKER_LOG=debug the SDK sets up a handler when it is imported, if there is none; a command has one by then.
    logging.getLogger().handlers.clear()


def main(commands: list[list[str]]) -> list[int]:
    """The exit code of each."""
    codes = []
    for command in commands:
        print(f"$ distillkit {command[0]} ...", flush=True)  # without the arguments: they are what is not to be shown
        try:
            app(command)
            codes.append(0)
        except SystemExit as ended:
            codes.append(int(ended.code or 0))
    return codes


if __name__ == "__main__":
    asked = json.load(sys.stdin)
    hurry()
    if asked["fireworks"]:
        hurry_fireworks()
    Path(asked["codes"]).write_text(json.dumps(main(asked["commands"])))
