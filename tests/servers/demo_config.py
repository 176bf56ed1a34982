"""The demo's run with its real model, on whatever serves it."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from distillkit import RunConfig
from distillkit.config.load import load_config
from servers.server_process import TOP


def demo(model: Path, tmp_path: Path, over: Sequence[str], **sections: Any) -> RunConfig:
    """The demo's config with the demo's model, and other plugins where they are named."""
    text = (TOP / "examples/routed_mopd/config.yaml").read_text(encoding="utf-8")
    config = tmp_path / "config.yaml"
    config.write_text(text.replace("HuggingFaceTB/SmolLM2-135M-Instruct", str(model)), encoding="utf-8")
    resolved, _ = load_config([config], [f"log_path={tmp_path}/runs/{{name}}", *over], extra=sections)
    return resolved


def http_teachers(url: str, model: Path, served: str = "smol", **options: Any) -> list[dict[str, Any]]:
    """The demo's two teachers, behind one server of `model` as `served`; `options` are those of scorer `http`."""
    return [
        {
            "model": served,
            "route_value": route,
            "teacher_messages_key": key,
            "tokenizer_model": str(model),
            "scorer": {"name": "http", "base_url": url, **options},
        }
        for route, key in (("short", "teacher_messages"), ("list", "list_messages"))
    ]
