"""What a server serves by name: the base model, perhaps with other weights, and LoRA adapters."""

import threading
from collections.abc import Mapping
from pathlib import Path

from pydantic import JsonValue

from distillkit_loopback.openai.bodies import LoadBody, UnloadBody
from distillkit_loopback.openai.errors import Refused, unknown_model
from distillkit_loopback.openai.models import AdapterError, Model

FIRST_VERSION = "default"
"""What vLLM calls the weights that it was started with."""


class Catalogue:
    """The base model and its adapters. Adapters and weights that were loaded are lost when the server stops."""

    def __init__(self, name: str, base: Model, context_length: int) -> None:
        """Serve `base` under `name`; `context_length` is the most tokens of prompt and completion."""
        self.name = name
        self.base = base
        self.weight_version = FIRST_VERSION
        """A label that clients put on the base model's weights."""
        self._first_base = base
        self.context_length = context_length
        self._lock = threading.Lock()
        self._first_name = name
        self._adapters: dict[str, tuple[str, Model]] = {}
        self._once_loaded: dict[str, str] = {}

    @property
    def once_loaded(self) -> Mapping[str, str]:
        """The paths of all adapters that were loaded since the start, also of those that were unloaded, by name."""
        with self._lock:
            return dict(self._once_loaded)

    @property
    def adapters(self) -> Mapping[str, str]:
        """The names of the adapters, and the paths that they were loaded from."""
        with self._lock:
            return {name: path for name, (path, _) in self._adapters.items()}

    def find(self, name: str | None) -> Model:
        """The model of that name; the base model for None. Raises Refused for an unknown name."""
        if not name or name == self.name:
            return self.base
        with self._lock:
            if name not in self._adapters:
                raise unknown_model(name)
            return self._adapters[name][1]

    def load(self, body: LoadBody) -> str:
        """Read an adapter. Raises Refused as vLLM refuses."""
        if not body.lora_name or not body.lora_path:
            raise Refused(400, "Both 'lora_name' and 'lora_path' must be provided.", "InvalidUserInput")
        name = f"The lora adapter '{body.lora_name}'"
        if body.lora_name == self.name:
            raise Refused(400, f"{name} conflicts with a served base model.", "InvalidUserInput")
        if body.lora_name in self.adapters and not body.load_inplace:
            hint = "If you want to load the adapter in place, set 'load_inplace' to True."
            raise Refused(400, f"{name} has already been loaded. {hint}", "InvalidUserInput")
        if not (Path(body.lora_path) / "adapter_config.json").is_file():
            reason = f"Loading lora {body.lora_name} failed: No adapter found for {body.lora_path}"
            raise Refused(404, reason, "NotFoundError")
        try:
            self.add(body.lora_name, body.lora_path)
        except AdapterError as error:
            raise Refused(500, str(error), "InternalServerError") from error
        return f"Success: LoRA adapter '{body.lora_name}' added successfully."

    def unload(self, body: UnloadBody) -> str:
        """Forget an adapter. Raises Refused as vLLM refuses."""
        if not body.lora_name:
            raise Refused(400, "'lora_name' needs to be provided to unload a LoRA adapter.", "InvalidUserInput")
        if not self.remove(body.lora_name):
            raise Refused(404, f"The lora adapter '{body.lora_name}' cannot be found.", "NotFoundError")
        return f"Success: LoRA adapter '{body.lora_name}' removed successfully."

    def add(self, name: str, path: str) -> None:
        """Serve the adapter that lies in `path`. Raises AdapterError if it cannot be read."""
        adapted = self.base.adapted(Path(path))
        with self._lock:
            self._adapters[name] = (path, adapted)
            self._once_loaded[name] = path

    def remove(self, name: str) -> bool:
        """Serve an adapter no more; whether it was there."""
        with self._lock:
            return self._adapters.pop(name, None) is not None

    def reload(self, path: str) -> None:
        """Give the base model the weights that lie in `path`. Raises Refused as vLLM's engine fails."""
        try:
            self.base = self.base.reweighted(Path(path))
        except AdapterError as error:
            raise Refused(500, str(error), "InternalServerError") from error

    def forget(self) -> None:
        """Unload all adapters and pushed weights, as a restart does."""
        with self._lock:
            self._adapters.clear()
            self._once_loaded.clear()
        self.name, self.base, self.weight_version = self._first_name, self._first_base, FIRST_VERSION

    def listing(self, owner: str) -> JsonValue:
        """The response of `/v1/models`."""
        cards = [self._card(self.name, self.base.name, None, owner)]
        cards += [self._card(name, path, self.name, owner) for name, path in self.adapters.items()]
        return {"object": "list", "data": [*cards]}

    def _card(self, name: str, root: str, parent: str | None, owner: str) -> JsonValue:
        length = None if parent else self.context_length
        who: dict[str, JsonValue] = {"id": name, "object": "model", "created": 0, "owned_by": owner}
        return {**who, "root": root, "parent": parent, "max_model_len": length}
