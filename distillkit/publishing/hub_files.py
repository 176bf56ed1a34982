"""The files that go to the hub: weights, what loads them, and the tokenizer; nothing else that lies beside them."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path

from pydantic import JsonValue

from distillkit.errors import InputError
from distillkit.publishing.machine_paths import MachinePaths

CARD = "README.md"
ADAPTER_CONFIG = "adapter_config.json"
WEIGHTS = ("*.safetensors", "*.safetensors.index.json")
CONFIGS = (
    ADAPTER_CONFIG,
    "config.json",
    "generation_config.json",
    "*processor_config.json",
    "quantization_config.json",
)
TOKENIZER = (
    *("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "chat_template.*"),
    *("vocab.*", "merges.txt", "*.model", "*.tiktoken"),
)
OF_A_FILE = ("_path", "_file", "_dir")
"""How such settings end: `name_or_path`, `_name_or_path`, `vocab_file`; whichever folder it was, nobody else has it."""
LENGTH_BYTES = 8
"""A safetensors file begins with the length of its header, little endian; the header says where each tensor ends."""


@dataclass(frozen=True, slots=True)
class HubFile:
    """One file as it goes there."""

    name: str
    content: Path | bytes

    @property
    def size(self) -> int:
        """In bytes."""
        return len(self.content) if isinstance(self.content, bytes) else self.content.stat().st_size


def weight_files(exported: Path) -> list[Path]:
    """The safetensors files of an export. Raises InputError where there are none, or one is cut off."""
    found = sorted(exported.glob("*.safetensors"))
    if not found:
        raise InputError(f"{exported} holds no weights: what a service trained is there, as its README.md says")
    for path in found:
        if not _is_whole(path):
            raise InputError(f"{path} is cut off or damaged; write it again: distillkit export RUN --to DIR")
    return found


def hub_files(exported: Path, base: str | None, paths: MachinePaths) -> Iterator[HubFile]:
    """Those of an export but for the card; machine paths are taken out of the small ones. `base`: its model there."""
    for path in sorted(exported.iterdir()):
        if not path.is_file() or not any(fnmatch(path.name, each) for each in (*WEIGHTS, *CONFIGS, *TOKENIZER)):
            continue
        if path.suffix == ".json" and not path.name.startswith(("tokenizer.", "vocab.")):
            config = _without_folders(json.loads(path.read_text(encoding="utf-8")))
            if path.name == ADAPTER_CONFIG and isinstance(config, dict):
                config["base_model_name_or_path"] = base
            text = json.dumps(config, indent=2, ensure_ascii=False) + "\n"
            yield HubFile(path.name, paths.scrubbed(text).encode("utf-8", errors="backslashreplace"))
        else:
            yield HubFile(path.name, path)


def _without_folders(value: JsonValue) -> JsonValue:
    """JSON in which no setting that says where a file is says in which folders of a machine."""
    if isinstance(value, list):
        return [_without_folders(each) for each in value]
    if not isinstance(value, dict):
        return value
    return {
        name: Path(each).name
        if isinstance(each, str) and each.startswith("/") and name.endswith(OF_A_FILE)
        else _without_folders(each)
        for name, each in value.items()
    }


def _is_whole(path: Path) -> bool:
    with path.open("rb") as file:
        length = int.from_bytes(file.read(LENGTH_BYTES), "little")
        if length > path.stat().st_size:
            return False
        try:
            header = json.loads(file.read(length))
        except ValueError:
            return False
    ends = [each["data_offsets"][1] for name, each in header.items() if name != "__metadata__"]
    return bool(path.stat().st_size == LENGTH_BYTES + length + max(ends, default=0))
