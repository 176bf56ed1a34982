"""The loopback Tinker service from a shell: `python -m distillkit_loopback.tinker MODEL`.

For trying the `tinker` backend without an account or a GPU: sessions, LoRA training and sampling are those of one small
model, which stands behind its own name (or `--name`), is trained for real, and costs nothing.
"""

import argparse
import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from distillkit.errors import DistillkitError
from distillkit_loopback.command import key_in, port_taken, require_packages, until_signal

if TYPE_CHECKING:
    from distillkit_loopback.tinker.service import TinkerService

CONTEXT_LENGTH = 1024
ANY_KEY = "tml-loopback"
"""The SDK takes no key that begins otherwise."""


def options() -> argparse.ArgumentParser:
    """The parser of the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m distillkit_loopback.tinker",
        description="The Tinker protocol on this machine's CPU, with a small model.",
    )
    parser.add_argument("model", help="a directory or hub name of a causal language model")
    parser.add_argument("--name", help="the model's name in configs (default: MODEL as it is given)")
    parser.add_argument("--kind", choices=("hosted", "skyrl"), default="hosted", help="which server's behavior")
    parser.add_argument("--tempered", action="store_true", help="logprobs at the temperature that sampled them")
    parser.add_argument("--port", type=int, default=8091, help="0: any that is free (default: %(default)s)")
    parser.add_argument("--api-key-env", metavar="VARIABLE", help="let in only who has the key in this variable")
    parser.add_argument("--context-length", type=int, default=CONTEXT_LENGTH, help="tokens (default: %(default)s)")
    return parser


def main(arguments: Sequence[str] | None = None, wait: Callable[[], object] | None = None) -> int:
    """Serve until `wait` returns (by default: until Ctrl-C or SIGTERM); returns the exit status."""
    chosen = options().parse_args(arguments)
    try:
        with start_service(chosen) as service:
            wait = wait or until_signal()
            key = f'"${chosen.api_key_env}"' if chosen.api_key_env else ANY_KEY
            print(
                f"{chosen.name or chosen.model} is served by the Tinker protocol; Ctrl-C ends it. Elsewhere:\n"
                f"export TINKER_BASE_URL={service.base_url}\n"
                f"export TINKER_API_KEY={key}",
                flush=True,
            )
            wait()
    except DistillkitError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def start_service(chosen: argparse.Namespace) -> "TinkerService":
    """The service, listening. Raises InputError for a model that cannot be read, or a port that is taken."""
    require_packages("the loopback service")
    from distillkit_loopback.tinker.service import TinkerService

    key = key_in(chosen.api_key_env)
    name = chosen.name or chosen.model
    try:
        service = TinkerService(
            {name: chosen.model},
            kind=chosen.kind,
            tempered=chosen.tempered,
            context_length=chosen.context_length,
            api_key=key,
            port=chosen.port,
        )
    except (OSError, OverflowError) as error:
        raise port_taken(chosen.port, error) from error
    try:
        service.load(name)
    except DistillkitError:
        service.close()
        raise
    return service


if __name__ == "__main__":
    sys.exit(main())
