"""Runs of the fake student with teachers over HTTP, and what they learn."""

from typing import Any

from conftest import read_jsonl

import distillkit
from builtin.http.serving import ByteScorer
from distillkit import RunConfig
from distillkit.run_directory.directory import run_directory
from distillkit_loopback.openai.server import LoopbackServer


def teacher(*servers: LoopbackServer, **options: Any) -> dict[str, Any]:
    url: Any = servers[0].url if len(servers) == 1 else tuple(server.url for server in servers)
    return {"model": "loopback", "scorer": ByteScorer(base_url=url, **options)}


def trained(result: distillkit.RunResult) -> list[dict[str, Any]]:
    """What a run learnt, without what depends on the clock."""
    kept = ("train/", "completions/")
    return [{name: value for name, value in row.items() if name.startswith(kept)} for row in result.metrics]


def completions(config: RunConfig) -> list[dict[str, Any]]:
    rows = read_jsonl(run_directory(config) / "ledger.jsonl")
    return [{"step": row["step"], **one} for row in rows for one in row["completions"]]
