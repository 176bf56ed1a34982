"""The fields that a server's source has, read without importing it."""

import ast
import subprocess
from pathlib import Path


def fields_of(python: Path, package: str, module: str, name: str) -> set[str]:
    """Those of class `name` in `module` of a package that is installed where `python` is, but for private ones."""
    where = f"import importlib.util as u; print(u.find_spec('{package}').submodule_search_locations[0])"
    folder = Path(subprocess.check_output([python, "-c", where], text=True).strip())
    tree = ast.parse((folder / module).read_text(encoding="utf-8"))
    (found,) = [n for n in tree.body if isinstance(n, ast.ClassDef) and n.name == name]
    fields = {n.target.id for n in found.body if isinstance(n, ast.AnnAssign) and isinstance(n.target, ast.Name)}
    return {field for field in fields if not field.startswith("_")}
