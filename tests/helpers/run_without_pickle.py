"""A run on the local backend, and a resumed one, where nothing can be unpickled: `run_without_pickle.py CONFIG`."""

import io
import pickle
import sys
from pathlib import Path
from typing import Any, NoReturn

import peft  # noqa: F401 - what these do while they are imported is theirs
import torch
import transformers  # noqa: F401
import yaml

import distillkit


def refuse(*args: Any, **options: Any) -> NoReturn:
    """In the place of whatever reads a pickle."""
    raise AssertionError("something is unpickled")


class Refused:
    """In the place of the classes that read pickles."""

    __init__ = refuse


def forbid() -> None:
    """From now on; all that could hold a reference from before reads through these too."""
    import _pickle

    for module in (pickle, _pickle):
        module.load = module.loads = refuse  # type: ignore[attr-defined]
        module.Unpickler = Refused  # type: ignore[attr-defined,misc]
    pickle._Unpickler = Refused  # type: ignore[attr-defined]
    torch.load = refuse
    torch.serialization.load = refuse  # type: ignore[attr-defined]


def main(path: Path) -> None:
    """Run to the end, and one step further from the checkpoint."""
    torch.set_num_threads(1)
    forbid()
    try:
        pickle.Unpickler(io.BytesIO())
    except AssertionError:
        pass
    else:
        raise SystemExit("pickles can still be read")
    config = yaml.safe_load(path.read_text(encoding="utf-8"))
    distillkit.run(config)
    config["train"]["max_steps"] += 1
    distillkit.run(config, resume=True)
    print("done")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
