"""Model repositories of a hub on this machine, that take uploads: large files by LFS, the rest within the commit."""

import base64
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field

Reply = tuple[int, bytes, Mapping[str, str]]


@dataclass
class ModelRepo:
    """One repository."""

    private: bool
    licence: str | None = None
    branches: dict[str, dict[str, bytes]] = field(default_factory=lambda: {"main": {}})
    """The files of each."""
    messages: list[str] = field(default_factory=list)


@dataclass
class Uploads:
    """All of them by `org/name`; what was uploaded and not committed; the tokens that came with it."""

    models: dict[str, ModelRepo] = field(default_factory=dict)
    objects: dict[str, bytes] = field(default_factory=dict)
    tokens: set[str] = field(default_factory=set)
    may_write: bool = True

    def info(self, path: str) -> Reply:
        """What is asked of a repository."""
        name = "/".join(path.removeprefix("/api/models/").split("/")[:2])
        repo = self.models.get(name)
        if repo is None:
            return 401, b"{}", {"X-Error-Code": "RepoNotFound"}
        card = {"license": repo.licence} if repo.licence else {}
        return 200, _json({"id": name, "private": repo.private, "siblings": [], "cardData": card}), {}

    def take(self, path: str, content: bytes, *, token: str, url: str) -> Reply:
        """What is to be changed."""
        self.tokens.add(token)
        if not self.may_write:
            return 403, b"{}", {}
        if path.startswith("/objects/"):
            self.objects[path.removeprefix("/objects/")] = content
            return 200, b"", {}
        if path == "/api/validate-yaml":
            return 200, _json({"errors": [], "warnings": []}), {}
        if path == "/api/repos/create":
            return self._create(json.loads(content))
        if path.endswith("/info/lfs/objects/batch"):
            return 200, _json(self._batch(json.loads(content), url)), {"Content-Type": "application/vnd.git-lfs+json"}
        name, kind, branch = _parts(path.removeprefix("/api/models/"))
        repo = self.models[name]
        if kind == "branch":
            repo.branches.setdefault(branch, dict(repo.branches["main"]))
            return 200, b"{}", {}
        if kind == "preupload":
            files = [{**each, "uploadMode": _mode(each["path"]), "shouldIgnore": False} for each in _files(content)]
            return 200, _json({"files": files}), {}
        for line in content.splitlines():
            self._commit(repo, branch, json.loads(line))
        oid = hashlib.sha1(content).hexdigest()
        return 200, _json({"commitUrl": f"{url}/{name}/commit/{oid}", "commitOid": oid}), {}

    def _create(self, asked: Mapping[str, str]) -> Reply:
        name = f"{asked['organization']}/{asked['name']}"
        if name in self.models:
            return 409, _json({"url": name}), {}
        self.models[name] = ModelRepo(asked.get("visibility") == "private")
        return 200, _json({"url": f"https://huggingface.co/{name}"}), {}

    def _batch(self, asked: Mapping[str, list[Mapping[str, object]]], url: str) -> Mapping[str, object]:
        objects = [
            {**each, "actions": {"upload": {"href": f"{url}/objects/{each['oid']}", "header": {}}}}
            for each in asked["objects"]
        ]
        return {"transfer": "basic", "objects": objects}

    def _commit(self, repo: ModelRepo, branch: str, line: Mapping[str, Mapping[str, str]]) -> None:
        value, files = line["value"], repo.branches[branch]
        if line["key"] == "header":
            repo.messages.append(value["summary"])
        elif line["key"] == "file":
            files[value["path"]] = base64.b64decode(value["content"])
        else:
            files[value["path"]] = self.objects[value["oid"]]
            assert hashlib.sha256(files[value["path"]]).hexdigest() == value["oid"]


def _parts(path: str) -> tuple[str, str, str]:
    org, name, kind, branch = path.split("/")
    return f"{org}/{name}", kind, branch


def _files(content: bytes) -> list[dict[str, str]]:
    return [{"path": each["path"]} for each in json.loads(content)["files"]]


def _mode(path: str) -> str:
    return "lfs" if path.endswith(".safetensors") else "regular"


def _json(value: object) -> bytes:
    return json.dumps(value).encode()
