"""The command's `--fault NAME[=VALUE]`: what is wrong with a server from its start to its end."""

from pathlib import Path

from distillkit.errors import InputError
from distillkit_loopback.openai.faults import Fault, Jitter, Order, OtherWeights
from distillkit_loopback.transport.faults import GenerationConfig

HELP = (
    "what is wrong with all that it computes: jitter[=NATS] (scores differ from request to request), order[=NATS] "
    "(they depend on the prompt before), generation-config[=JSON] (sampling fields that a request leaves out are "
    "filled in, by default from MODEL's generation_config.json, as vLLM does), replica[=SCALE] (its weights are others)"
)
SIZED: dict[str, type[Jitter] | type[Order] | type[OtherWeights]] = {
    "jitter": Jitter,
    "order": Order,
    "replica": OtherWeights,
}


def standing_fault(text: str, model: str) -> Fault:
    """The fault that `--fault` names. Raises InputError for an unknown one, or a value that is none."""
    name, _, value = text.partition("=")
    try:
        if name == "generation-config":
            return GenerationConfig.read(value or (Path(model) / "generation_config.json").read_text(encoding="utf-8"))
        if name in SIZED:
            return SIZED[name](float(value)) if value else SIZED[name]()
    except (OSError, ValueError) as error:
        raise InputError(f"--fault {text}: {error}") from error
    raise InputError(f"--fault {name}: known are generation-config, {', '.join(SIZED)}")
