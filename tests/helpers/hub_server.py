"""As much of the Hugging Face hub as `datasets`, and an upload of a model, ask for, on this machine."""

import hashlib
import json
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from helpers.hub_uploads import Uploads

Files = Mapping[str, bytes]


@dataclass
class Hub:
    """What is on it: by `org/name` the commits, by hash the files; branches; which are gated; what was asked."""

    commits: dict[str, dict[str, Files]] = field(default_factory=dict)
    heads: dict[str, str] = field(default_factory=dict)
    gated: set[str] = field(default_factory=set)
    requests: list[str] = field(default_factory=list)
    uploads: Uploads = field(default_factory=Uploads)
    url: str = ""

    def push(self, repo: str, files: Files) -> str:
        """A new commit of main; its hash."""
        commit = hashlib.sha1(repr(sorted(files.items())).encode()).hexdigest()
        self.commits.setdefault(repo, {})[commit] = files
        self.heads[repo] = commit
        return commit

    def answer(self, path: str) -> tuple[int, bytes, dict[str, str]]:
        """Status, body and headers of a GET."""
        api, parts = path.startswith("/api/"), path.partition("datasets/")[2].split("/")
        repo, kind, name, inner = "/".join(parts[:2]), *(*parts[2:4], "", "")[:2], "/".join(parts[4:])
        if repo not in self.commits:
            return 401, b"{}", {"X-Error-Code": "RepoNotFound"}
        if kind == "refs":
            return 200, _json({"branches": [_ref("main", self.heads[repo])], "tags": [], "converts": []}), {}
        commit = self.heads[repo] if name in ("", "main") else name
        files = self.commits[repo].get(commit)
        if files is None:
            return 404, b"{}", {"X-Error-Code": "RevisionNotFound"}
        if api and kind in ("", "revision"):
            return 200, _json({"id": repo, "sha": commit, "siblings": [{"rfilename": file} for file in files]}), {}
        if repo in self.gated:
            return 401, b"{}", {"X-Error-Code": "GatedRepo"}
        if kind == "tree":
            return 200, _json(list(_listing(files, inner))), {}
        if inner not in files:
            return 404, b"", {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": commit}
        return 200, files[inner], {"ETag": f'"{_hash(files[inner])}"', "X-Repo-Commit": commit}


@contextmanager
def serving(hub: Hub) -> Iterator[Hub]:
    """While this lasts it is at `hub.url`, which HF_ENDPOINT can name."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            hub.requests.append(self.path)
            path = self.path.partition("?")[0]
            of_models = path.startswith("/api/models/")
            self._reply(*(hub.uploads.info(path) if of_models else hub.answer(path)))

        def do_POST(self) -> None:
            hub.requests.append(self.path)
            content = self.rfile.read(int(self.headers["Content-Length"]))
            given = {"token": self.headers.get("Authorization", ""), "url": hub.url}
            self._reply(*hub.uploads.take(self.path.partition("?")[0], content, **given))

        do_PUT = do_POST  # noqa: N815 - what the server calls

        def _reply(self, status: int, body: bytes, headers: Mapping[str, str]) -> None:
            self.send_response(status)
            for name, value in {**headers, "Content-Length": str(len(body))}.items():
                self.send_header(name, value)
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

        do_HEAD = do_GET  # noqa: N815 - what the server calls

        def log_message(self, *arguments: object) -> None:
            """The terminal is the tests'."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    hub.url = f"http://127.0.0.1:{server.server_port}"
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()


def _listing(files: Files, folder: str) -> Iterator[Mapping[str, object]]:
    """The files and folders of a folder, not what is below those."""
    start = f"{folder}/" if folder else ""
    for name in dict.fromkeys(path.removeprefix(start).partition("/")[0] for path in files if path.startswith(start)):
        body = files.get(start + name)
        kind, size = ("directory", 0) if body is None else ("file", len(body))
        yield {"type": kind, "path": start + name, "size": size, "oid": _hash(body or b"")}


def _json(value: object) -> bytes:
    return json.dumps(value).encode()


def _hash(body: bytes) -> str:
    return hashlib.sha1(body).hexdigest()


def _ref(name: str, commit: str) -> dict[str, str]:
    return {"name": name, "ref": f"refs/heads/{name}", "targetCommit": commit}
