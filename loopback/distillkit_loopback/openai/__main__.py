"""The loopback server from a shell: `python -m distillkit_loopback.openai MODEL`, to try things without a GPU.

It serves a real model, slowly, and responds as vLLM or SGLang do. It is not meant for work.
"""

import argparse
import sys
from collections.abc import Callable, Sequence

from distillkit.errors import DistillkitError
from distillkit_loopback.command import key_in, port_taken, require_packages, until_signal
from distillkit_loopback.openai.faults import Fault
from distillkit_loopback.openai.flavors import NAMES, Flavor
from distillkit_loopback.openai.server import LoopbackServer
from distillkit_loopback.openai.standing_fault import HELP, standing_fault
from distillkit_loopback.transport.faults import Faults

CONTEXT_LENGTH = 1024


def options() -> argparse.ArgumentParser:
    """The parser of the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m distillkit_loopback.openai",
        description="Serve a small model on this machine's CPU, as vLLM or SGLang would: for trying things out.",
    )
    parser.add_argument("model", help="a directory or hub name of a causal language model")
    parser.add_argument("--name", help="what the server calls it (by default MODEL)")
    parser.add_argument("--port", type=int, default=8000, help="0: any that is free (default: %(default)s)")
    parser.add_argument("--flavor", choices=NAMES, default="vllm", help="what it imitates (default: %(default)s)")
    parser.add_argument("--no-ids", action="store_true", help="never name tokens by id, as many servers do not")
    parser.add_argument("--enable-scale-out", action="store_true", help="vLLM's /inference/v1/generate is there")
    parser.add_argument(
        "--processed-logprobs",
        action="store_true",
        help="a completion's logprobs are those at its temperature: vLLM with --logprobs-mode processed_logprobs, "
        "SGLang without SGLANG_RETURN_ORIGINAL_LOGPROB=1",
    )
    parser.add_argument("--fault", metavar="NAME[=VALUE]", help=HELP)
    parser.add_argument("--api-key-env", metavar="VARIABLE", help="let in only who has the key in this variable")
    parser.add_argument("--context-length", type=int, default=CONTEXT_LENGTH, help="tokens (default: %(default)s)")
    return parser


def main(arguments: Sequence[str] | None = None, wait: Callable[[], object] | None = None) -> int:
    """Serve until `wait` returns (by default: until Ctrl-C or SIGTERM); returns the exit status."""
    chosen = options().parse_args(arguments)
    try:
        with started(chosen) as server:
            wait = wait or until_signal()
            print(
                f"{chosen.name or chosen.model} is served at {server.url}/v1 as {chosen.flavor} does; Ctrl-C ends it",
                flush=True,
            )
            wait()
    except DistillkitError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def started(chosen: argparse.Namespace) -> LoopbackServer:
    """The server, listening. Raises InputError for what cannot be served, or a port that is taken."""
    require_packages("the loopback server")
    from distillkit_loopback.openai.network_model import NetworkModel

    faults = Faults[Fault]()
    if chosen.fault is not None:
        faults.add(standing_fault(chosen.fault, chosen.model), times=None)
    server = LoopbackServer(
        NetworkModel.load(chosen.model),
        name=chosen.name or chosen.model,
        flavor=Flavor(chosen.flavor, ids=not chosen.no_ids, scale_out=chosen.enable_scale_out),
        faults=faults,
        api_key=key_in(chosen.api_key_env),
        context_length=chosen.context_length,
        processed_logprobs=chosen.processed_logprobs,
        port=chosen.port,
    )
    try:
        server.start()
    except (OSError, OverflowError) as error:
        raise port_taken(chosen.port, error) from error
    return server


if __name__ == "__main__":
    sys.exit(main())
