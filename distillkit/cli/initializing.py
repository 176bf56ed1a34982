"""`distillkit init`: write what a run starts from, and say what comes next."""

import shlex
from pathlib import Path

from distillkit.cli import scaffold
from distillkit.cli.reporting import OUT
from distillkit.cli.scaffold_from_data import FromData, write_for
from distillkit.registry import Registry


def init_and_report(directory: Path, teachers: int, data: str | None, *, quiet: bool) -> None:
    """Write a config with sample data, or for the rows at `data`. Raises InputError rather than overwrite a file."""
    if data is None:
        written = FromData(scaffold.write(directory, teachers))
    else:
        written = write_for(data, directory, teachers, Registry.discover())
    if quiet:
        return
    for path in written.files:
        OUT.print(f"wrote {path}")
    change = "" if directory == Path() else f"cd {shlex.quote(str(directory))} && "
    OUT.print(f"next: {written.to_do}{change}distillkit check config.yaml")
