"""A run that was started, and what its resume lists as changed."""

from pathlib import Path

import pytest

from distillkit import RunConfig, run
from distillkit.errors import InputError
from distillkit.run_directory.directory import run_directory


def started(config: RunConfig) -> Path:
    """A run that came to its end, and may go on with more steps; its directory."""
    run(config)
    return run_directory(config)


def listed(config: RunConfig) -> list[str]:
    """What a resume is refused for."""
    with pytest.raises(InputError, match="was written by another run") as caught:
        run(config, resume=True)
    return [line.strip() for line in str(caught.value).splitlines()[1:-1]]
