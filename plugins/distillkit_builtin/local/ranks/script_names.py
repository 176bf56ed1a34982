"""Scripts of plugins on hosts that have them at other paths.

The name of a script's module holds its path, and pickle finds a function by its module's name. So ranks tell each
other how they call their scripts, and each finds its own, of the same content, by all of those names.
"""

import hashlib
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path

from distillkit.roles.attribution import SCRIPT_MODULE


def script_names() -> dict[str, str]:
    """The scripts that this process has loaded: the names of their modules, and digests of their content."""
    files = {name: getattr(module, "__file__", None) for name, module in [*sys.modules.items()]}
    return {
        name: hashlib.sha256(Path(file).read_bytes()).hexdigest()
        for name, file in files.items()
        if name.startswith(SCRIPT_MODULE) and file is not None and Path(file).is_file()
    }


def know_names(theirs: Iterable[Mapping[str, str]]) -> None:
    """Let scripts of this process be found by the names that others have for the same content."""
    own = {digest: name for name, digest in script_names().items()}
    for name, digest in ((name, digest) for names in theirs for name, digest in names.items()):
        if name not in sys.modules and digest in own:
            sys.modules[name] = sys.modules[own[digest]]
