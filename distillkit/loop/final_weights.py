"""The final weights, as the student writes them for others to use."""

import asyncio
from pathlib import Path

from distillkit.files.jsonl import explain_write_errors
from distillkit.files.permissions import apply_umask
from distillkit.roles.attribution import attribute_to
from distillkit.roles.student import Student


async def export_weights(student: Student, run_dir: Path) -> Path:
    """Write them into `run_dir`, readable for whom the umask lets; returns the folder or file."""
    with attribute_to(student, "in export()"):
        path = await student.export(run_dir)
    with explain_write_errors(path):
        await asyncio.to_thread(apply_umask, path)
    return path
