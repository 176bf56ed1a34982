"""What a teacher's model is at a Tinker server: a base model by its name, or weights that were saved for a sampler."""

import re
from dataclasses import dataclass

from distillkit.errors import InputError
from distillkit_builtin.tinker.service import TinkerService

SCHEME = "tinker://"
PATH = re.compile(r"tinker://(?P<run>[^/\s]+)/(?:(?P<kind>[^/\s]+)/)?(?P<name>[^/\s]+)")
SAVED = f"{SCHEME}RUN/sampler_weights/NAME (what `save_weights_for_sampler` gives)"
UNSAMPLED = {"weights": "a checkpoint of training", "external_weights": "a copy to download"}


@dataclass(frozen=True, slots=True)
class ServedTeacher:
    """A teacher's model, as its server knows it."""

    model: str
    base_model: str | None
    """Its base model's name there, or its own; None: the server does not say."""
    longest: int | None = None
    """Tokens that it takes, where the server says so."""

    @property
    def tokenizer_name(self) -> str | None:
        """The name of its tokenizer on a hub, as far as names go: `Qwen/Qwen3-8B` of `Qwen/Qwen3-8B:peft:131072`."""
        return None if self.base_model is None else self.base_model.split(":", 1)[0]

    @property
    def source(self) -> dict[str, str]:
        """What `create_sampling_client` takes it by."""
        return {"model_path" if self.model.startswith(SCHEME) else "base_model": self.model}


def find_teacher(service: TinkerService, model: str) -> ServedTeacher:
    """Ask the server for a teacher; blocking.

    Raises:
        InputError: if the server does not respond or has no such model, or the path is of no sampler's weights. Whether
            weights are there that a path names is known when they are opened.
    """
    facts = service.ask()
    if not model.startswith(SCHEME):
        facts.require_model(model, "model")
        return ServedTeacher(model, model, facts.lengths[model])
    path = PATH.fullmatch(model)
    if path is None:
        raise InputError(f"model {model!r} is no path of weights: {SAVED}")
    if path["kind"] in UNSAMPLED:
        raise InputError(
            f"model {model!r} is {UNSAMPLED[path['kind']]}, which no server samples or scores from; name the weights "
            f"that were saved for a sampler: {SAVED}"
        )
    base = service.base_model_of(path["run"])
    return ServedTeacher(model, base, None if base is None else facts.lengths.get(base))
