"""What was saved, over HTTP: listed, described, kept, deleted and downloaded."""

import io
import json
import tarfile
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta

from pydantic import JsonValue

from distillkit_loopback.tinker.checkpoints import Checkpoint, listing
from distillkit_loopback.tinker.routing import API, Call, Route, Shared, read
from distillkit_loopback.transport.messages import Body, Response, as_bytes
from distillkit_loopback.transport.routes import Refused

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
DOWNLOADS = "/download/"
BINARY = {"content-type": "application/octet-stream"}


class WeightsInfo(Body):
    """The body of a request about a checkpoint."""

    tinker_path: str


class Ttl(Body):
    """The body of a request to keep a checkpoint."""

    ttl_seconds: int | None = None


class Records:
    """The endpoints about checkpoints."""

    def __init__(self, shared: Shared) -> None:
        """Those of `shared`."""
        self._shared = shared

    def routes(self) -> Iterable[Route]:
        """The endpoints of this part."""
        runs = API + "training_runs/{run+}/checkpoints"
        yield Route.to("GET", runs, self._list)
        yield Route.to("POST", API + "weights_info", self._info)
        yield Route.to("DELETE", runs + "/{checkpoint+}", self._delete)
        if self._shared.behavior.keeps_options:
            yield Route.to("PUT", runs + "/{checkpoint+}/ttl", self._keep)
            yield Route.to("GET", API + "checkpoints", self._list_all)
        else:
            yield Route.to("PUT", runs + "/{checkpoint+}/ttl", _not_allowed)
        if self._shared.behavior.exports:
            yield Route.to("GET", runs + "/{checkpoint+}/external_weights_urls", self._addresses)
            yield Route.to("GET", DOWNLOADS + "{run+}/{checkpoint}/{file}", self._download)
        else:
            yield Route.to("GET", runs + "/{checkpoint}/archive", self._archive)
            yield Route.to("GET", runs + "/{checkpoint}/download", self._archived)

    def _named(self, call: Call) -> Checkpoint:
        """That of `KIND/NAME` in the address. Raises Refused."""
        kind, slash, name = call.names["checkpoint"].partition("/")
        if not slash:
            expected = "'weights/<name>' or 'sampler_weights/<name>'"
            raise Refused(400, f"Invalid checkpoint identifier. Expected format {expected}")
        return self._shared.checkpoints.get(call.names["run"], kind, name)

    def _list(self, call: Call) -> Response:
        found = self._shared.checkpoints.all(call.names["run"])
        if not self._shared.behavior.keeps_options:
            return Response({"checkpoints": [_plain(each) for each in found]})
        return Response(dict(listing(each for each in found if not each.saving.ephemeral)))

    def _list_all(self, call: Call) -> Response:
        found = [each for each in self._shared.checkpoints.all() if not each.saving.ephemeral]
        cursor: JsonValue = {"offset": 0, "limit": len(found), "total_count": len(found)}
        return Response({**listing(iter(found)), "cursor": cursor})

    def _info(self, call: Call) -> Response:
        saving = self._shared.checkpoints.find(read(call, WeightsInfo).tinker_path, "weights").saving
        known: dict[str, JsonValue] = {"base_model": saving.base_model, "is_lora": True, "lora_rank": saving.lora.rank}
        if self._shared.behavior.knows_models:
            known |= saving.lora.model_dump(include={"train_unembed", "train_mlp", "train_attn"})
        return Response(known)

    def _delete(self, call: Call) -> Response:
        self._shared.checkpoints.delete(self._named(call))
        return Response(None, 204)

    def _keep(self, call: Call) -> Response:
        self._shared.checkpoints.keep(self._named(call), read(call, Ttl).ttl_seconds)
        return Response(None, 204)

    def _addresses(self, call: Call) -> Response:
        checkpoint = self._named(call)
        if checkpoint.kind != "external_weights":
            raise Refused(400, f"{checkpoint.path} is not a checkpoint of external weights")
        base = f"http://{call.request.headers['host']}{DOWNLOADS}{checkpoint.run}/{checkpoint.name}"
        urls: JsonValue = {name: f"{base}/{name}?signature=loopback" for name in (CONFIG, WEIGHTS)}
        expires = datetime.now(UTC) + timedelta(hours=1)
        return Response({"urls": urls, "expires": expires.isoformat()})

    def _download(self, call: Call) -> Response:
        checkpoint = self._shared.checkpoints.get(call.names["run"], "external_weights", call.names["checkpoint"])
        match call.names["file"]:
            case name if name == CONFIG:
                return Response(_config(checkpoint, whole=True), headers=BINARY)
            case name if name == WEIGHTS:
                return Response((checkpoint.folder / WEIGHTS).read_bytes(), headers=BINARY)
        raise Refused(404, "Not Found")

    def _archive(self, call: Call) -> Response:
        checkpoint = self._sampler(call)
        place = f"{API}training_runs/{checkpoint.run}/checkpoints/{checkpoint.name}/download"
        return Response(None, 302, {"location": f"http://{call.request.headers['host']}{place}"})

    def _archived(self, call: Call) -> Response:
        checkpoint = self._sampler(call)
        files = {CONFIG: _config(checkpoint, whole=False), WEIGHTS: (checkpoint.folder / WEIGHTS).read_bytes()}
        packed = io.BytesIO()
        with tarfile.open(fileobj=packed, mode="w:gz") as archive:
            for name, data in files.items():
                entry = tarfile.TarInfo(name)
                entry.size = len(data)
                archive.addfile(entry, io.BytesIO(data))
        return Response(packed.getvalue(), headers=BINARY)

    def _sampler(self, call: Call) -> Checkpoint:
        return self._shared.checkpoints.get(call.names["run"], "sampler_weights", call.names["checkpoint"])


def _not_allowed(call: Call) -> Response:
    raise Refused(405, "Method Not Allowed")


def _plain(checkpoint: Checkpoint) -> JsonValue:
    """As SkyRL lists it: the bare name, and less."""
    kind = "training" if checkpoint.kind == "weights" else "sampler"
    return {
        "checkpoint_id": checkpoint.name,
        "checkpoint_type": kind,
        "time": checkpoint.saving.time.isoformat(),
        "tinker_path": checkpoint.path,
    }


def _config(checkpoint: Checkpoint, *, whole: bool) -> bytes:
    """The adapter's config; not `whole`: as SkyRL has it, `target_modules` null, of which PEFT loads a part."""
    config = json.loads((checkpoint.folder / CONFIG).read_text(encoding="utf-8"))
    config["base_model_name_or_path"] = checkpoint.saving.base_model
    return as_bytes(config if whole else {**config, "target_modules": None, "task_type": None})
