"""Where the examples are: in the wheel beside the package, in a checkout at its top."""

from pathlib import Path

from distillkit.errors import InputError


def examples_path() -> Path:
    """The directory with `routed_mopd/` and the others. Raises InputError if the installation lacks it."""
    here = Path(__file__).resolve().parent
    for candidate in (here / "examples", here.parent / "examples"):
        if candidate.is_dir():
            return candidate
    raise InputError(f"the examples are neither in {here} nor beside it; install distillkit again")
