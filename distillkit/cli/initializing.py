"""`distillkit init`: write what a run starts from, and say what comes next."""

import shlex
from pathlib import Path

from distillkit.cli.demo import demo_model
from distillkit.cli.examples import copy_example
from distillkit.cli.reporting import OUT
from distillkit.cli.scaffold import write_sample
from distillkit.cli.scaffold_from_data import FromData, write_for
from distillkit.errors import InputError
from distillkit.registry import Registry

SMALL_MODEL = "sampling.chat_template_kwargs={}"
"""The demo's model knows no option of the config's chat template."""
THEN = """\
after that change in config.yaml: `model` of student and teachers; the rows (`distillkit init DIR --from DATA` reads \
yours); `learning_rate`, lower for larger models; the number of steps, by more rows or `epochs`"""


def init_and_report(
    directory: Path, teachers: int | None, data: str | None, example: str | None, *, quiet: bool
) -> None:
    """Write a config with sample data, for the rows at `data`, or that of an example.

    Raises:
        InputError: rather than overwrite a file; for options that exclude one another, or an unknown example.
    """
    for option, given in (("--from", data), ("--teachers", teachers)):
        if example is not None and given is not None:
            raise InputError(f"--example brings its own rows and teachers, so {option} has no place; take one of them")
    written, advice = _write(directory, teachers or 1, data, example)
    if quiet:
        return
    for path in written.files:
        OUT.print(f"wrote {path}")
    change = "" if directory == Path() else f"cd {shlex.quote(str(directory))} && "
    OUT.print(f"next: {written.to_do}{change}distillkit check config.yaml")
    if advice:
        OUT.say(advice)


def _write(directory: Path, teachers: int, data: str | None, example: str | None) -> tuple[FromData, str]:
    """What was written, and what to say behind what comes next."""
    if example is not None:
        return FromData(copy_example(example, directory)), ""
    if data is not None:
        return write_for(data, directory, teachers, Registry.discover()), ""
    return FromData(write_sample(directory, teachers)), f"{_first_look(teachers)}\n{THEN}"


def _first_look(teachers: int) -> str:
    """The command that shows something on any machine, with the demo's model where it lies."""
    model = demo_model()
    made = "" if model.is_dir() else "; `distillkit demo` makes the model"
    keys = ["student", *(f"teachers.{number}" for number in range(teachers))]
    models = " ".join(f"{key}.model={shlex.quote(str(model))}" for key in keys)
    first = "then, for a first look in two minutes on a CPU, without a model hub"
    return f"{first}{made}:\n  distillkit run config.yaml {models} {SMALL_MODEL}"
