"""What the commands `python -m distillkit_loopback.openai`, `... .fireworks` and `... .tinker` share."""

import logging
import os
import signal
import threading
from collections.abc import Callable
from importlib.util import find_spec

from distillkit.errors import InputError


def require_packages(server: str) -> None:
    """Raise InputError if the packages that compute are not installed."""
    if find_spec("torch") is None or find_spec("peft") is None:
        raise InputError(f"{server} computes by PyTorch and PEFT: pip install 'distillkit[local]'")
    logger = logging.getLogger("bitsandbytes")  # PEFT imports it; it warns of a kernel that only 4-bit models need
    if logger.level == logging.NOTSET:
        logger.setLevel(logging.ERROR)


def key_in(variable: str | None) -> str | None:
    """The key that clients need, from an environment variable; None: any client is let in.

    Raises:
        InputError: if the variable holds none.
    """
    if variable is None:
        return None
    if not os.environ.get(variable):
        raise InputError(f"--api-key-env: the environment variable {variable} is not set; export any text as the key")
    return os.environ[variable]


def port_taken(port: int, error: Exception) -> InputError:
    """The error of a port on which the server cannot listen."""
    return InputError(f"port {port} cannot be used: {error}; choose another one by --port")


def until_signal() -> Callable[[], object]:
    """A function that returns at Ctrl-C or SIGTERM; from now on neither ends the process by itself."""
    ended = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: ended.set())
    return ended.wait
