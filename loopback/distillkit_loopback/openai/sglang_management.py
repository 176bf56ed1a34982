"""What an SGLang server has beside `/generate`: runtime adapters, whole weights, and what it says of itself.

As SGLang 0.5.23 does it: a name that was loaded cannot be loaded again; weights are replaced once nothing is computed,
what comes meanwhile waits; after that the server calls its model by the path of the new weights.
"""

from collections.abc import Mapping
from pathlib import Path

from pydantic import JsonValue

from distillkit_loopback.openai.bodies import TokenizeBody
from distillkit_loopback.openai.engine import Engine
from distillkit_loopback.openai.errors import Refused, read
from distillkit_loopback.openai.faults import Fault
from distillkit_loopback.openai.models import AdapterError
from distillkit_loopback.openai.routes import Function, RawResponse
from distillkit_loopback.openai.sglang_bodies import AdapterBody, WeightsFromDiskBody, WeightVersionBody
from distillkit_loopback.transport.messages import Request, Response

VERSION = "0.5.23"


class SGLangManagement:
    """Adapters and weights are those of the engine's catalogue."""

    def __init__(self, engine: Engine) -> None:
        """What `engine` serves when it starts is what `/server_info` goes on telling."""
        self._engine = engine
        self._first_name = engine.catalogue.name

    def routes(self) -> Mapping[tuple[str, str], Function]:
        """The handlers by HTTP method and path."""
        return {
            ("GET", "/get_model_info"): self._model_info,
            ("GET", "/model_info"): self._model_info,
            ("GET", "/server_info"): self._server_info,
            ("POST", "/tokenize"): self._tokenize,
            ("POST", "/load_lora_adapter"): self._load,
            ("POST", "/unload_lora_adapter"): self._unload,
            ("POST", "/update_weights_from_disk"): self._replace,
            ("POST", "/update_weight_version"): self._label,
            ("POST", "/flush_cache"): lambda request, fault: RawResponse(b"Cache flushed.\n"),
        }

    def _model_info(self, request: Request, fault: Fault | None) -> Response:
        catalogue = self._engine.catalogue
        name, version = catalogue.base.name, catalogue.weight_version
        said: dict[str, JsonValue] = {"model_path": name, "tokenizer_path": name, "is_generation": True}
        return Response({**said, "served_model_name": catalogue.name, "weight_version": version})

    def _server_info(self, request: Request, fault: Fault | None) -> Response:
        said: dict[str, JsonValue] = {"version": VERSION, "served_model_name": self._first_name, "enable_lora": True}
        said |= {"enable_deterministic_inference": True, "enable_watermark": False}
        return Response({**said, "max_req_input_len": self._engine.catalogue.context_length - 6})

    def _tokenize(self, request: Request, fault: Fault | None) -> Response:
        body = read(TokenizeBody, request.body)
        tokens: list[JsonValue] = [*self._engine.catalogue.base.tokenizer.encode(body.prompt)]
        length = self._engine.catalogue.context_length
        return Response({"tokens": tokens, "count": len(tokens), "max_model_len": length})

    def _load(self, request: Request, fault: Fault | None) -> Response:
        body, catalogue = read(AdapterBody, request.body), self._engine.catalogue
        if body.lora_name in catalogue.adapters:
            return self._adapters(f"Failed to load LoRA adapter {body.lora_name} because it is already loaded")
        problem = unseen(body.lora_path, "adapter_config.json")
        if problem is not None:
            return self._adapters(problem)
        try:
            catalogue.add(body.lora_name, body.lora_path)
        except AdapterError as error:
            return self._adapters(str(error))
        return self._adapters(None)

    def _unload(self, request: Request, fault: Fault | None) -> Response:
        """The name goes on answering: `/generate` loads it again."""
        name = read(AdapterBody, request.body).lora_name
        gone = self._engine.catalogue.remove(name)
        names = ", ".join(map(repr, self._engine.catalogue.adapters))
        return self._adapters(
            None if gone else f"LoRA with name {name} does not exist. Loaded LoRAs: odict_keys([{names}])"
        )

    def _adapters(self, problem: str | None) -> Response:
        loaded: dict[str, JsonValue] = {**self._engine.catalogue.adapters}
        said: dict[str, JsonValue] = {
            "success": problem is None,
            "error_message": problem or "",
            "loaded_adapters": loaded,
        }
        return Response(said, 200 if problem is None else 400)

    def _replace(self, request: Request, fault: Fault | None) -> Response:
        body, catalogue, gate = read(WeightsFromDiskBody, request.body), self._engine.catalogue, self._engine.gate
        problem = unseen(body.model_path, "model.safetensors")
        if problem is not None:
            return _replaced(f"Failed to get weights iterator: {problem}.", success=False)
        gate.pause()
        try:
            catalogue.reload(body.model_path)
            catalogue.name = body.model_path
            catalogue.weight_version = body.weight_version or catalogue.weight_version
        except Refused as error:
            return _replaced(f"Failed to update weights: {error}.\nRolling back to original weights.", success=False)
        finally:
            gate.resume()
        label = f" Weight version updated to {body.weight_version}." if body.weight_version else ""
        return _replaced(f"Succeeded to update model weights.{label}", success=True)

    def _label(self, request: Request, fault: Fault | None) -> Response:
        new = read(WeightVersionBody, request.body).new_version
        self._engine.catalogue.weight_version = new
        return Response({"success": True, "message": f"Weight version updated to {new}", "new_version": new})


def unseen(path: str, file: str) -> str | None:
    """What SGLang says of a directory without that file; a path that is not there it takes for a hub's name."""
    if not Path(path).is_dir():
        return (
            f"Repo id must be in the form 'repo_name' or 'namespace/repo_name': '{path}'. Use `repo_type` argument if "
            "needed."
        )
    if (Path(path) / file).is_file():
        return None
    if file.endswith(".json"):
        return f"[Errno 2] No such file or directory: '{path}/{file}'"
    return f"Cannot find any model weights with `{path}`"


def _replaced(message: str, *, success: bool) -> Response:
    said: dict[str, JsonValue] = {"success": success, "message": message, "num_paused_requests": 0}
    return Response(said, 200 if success else 400)
