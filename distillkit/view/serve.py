"""Serves the pages on loopback until it is interrupted."""

import secrets
import socket
from collections.abc import Callable
from contextlib import suppress

import uvicorn

from distillkit.errors import InputError
from distillkit.view.application import view_application
from distillkit.view.pages import Pages

LOOPBACK = "127.0.0.1"
TOKEN_BYTES = 24
SECONDS_TO_END = 1


def serve(pages: Pages, port: int, ready: Callable[[str], None]) -> None:
    """Serve until Ctrl-C; `ready` hears the address, with its token, when the port is open.

    Args:
        pages: what is shown.
        port: on loopback; 0: one that is free.
        ready: called once.

    Raises:
        InputError: if the port is taken.
    """
    token = secrets.token_urlsafe(TOKEN_BYTES)
    with listening(port) as listener:
        ready(f"http://{LOOPBACK}:{listener.getsockname()[1]}/{token}/")
        with suppress(KeyboardInterrupt):  # how uvicorn passes Ctrl-C on when it has shut down
            server_of(pages, token).run(sockets=[listener])


def server_of(pages: Pages, token: str) -> uvicorn.Server:
    """The server, which runs on sockets that are given to it."""
    config = uvicorn.Config(
        view_application(pages, token),
        log_level="warning",
        access_log=False,  # it would write the token
        server_header=False,
        lifespan="off",
        timeout_graceful_shutdown=SECONDS_TO_END,
        ws="none",
    )
    return uvicorn.Server(config)


def listening(port: int) -> socket.socket:
    """A socket on loopback that takes connections from now on, and keeps them until a server serves.

    Raises:
        InputError: if the port is taken.
    """
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((LOOPBACK, port))
        listener.listen()  # bound alone it refuses who asks before uvicorn has started
    except (OSError, OverflowError) as error:
        listener.close()
        why = error.strerror if isinstance(error, OSError) else "no such port"
        raise InputError(f"--port {port}: {why}; without --port a free one is taken") from error
    return listener
