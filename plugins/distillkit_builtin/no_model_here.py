"""What a path is that was named as a model, and holds none: said in the words of whoever named it. Needs no torch."""

import json
from pathlib import Path

from distillkit.files.near_paths import did_you_mean
from distillkit_builtin.model_source import ADAPTER_CONFIG, ADAPTER_WEIGHTS

RUN_DIRECTORY = ("config.yaml", "ledger.jsonl")
TRAINED = ("model", "adapter")
TOKENIZERS = ("tokenizer.json", "tokenizer.model", "tokenizer_config.json", "vocab.json", "spiece.model")
TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json")
GGUF = "a quantized format for inference; name the model that it was made of, or serve it over HTTP"


def no_model_here(path: Path) -> str:
    """Why there is no model at the path of a directory without `config.json`, of a file, or of nothing."""
    if path.is_file():
        kind = f", {GGUF}" if path.suffix == ".gguf" else _its_directory(path.parent)
        return f"it is a file{kind}"
    if not path.is_dir():
        return f"there is no such directory{did_you_mean(path)}"
    names = {each.name for each in path.iterdir()}
    if not names:
        return "the directory is empty"
    return f"it has no config.json, so it holds no model{_instead(path, names)}"


def _its_directory(folder: Path) -> str:
    """What a model is, and that the file's own directory is one, where that is so."""
    own = f": name {folder}, where this file is" if (folder / "config.json").is_file() else ""
    return f"; a model is a directory{own}"


def _instead(path: Path, names: set[str]) -> str:
    """What a directory holds in its place."""
    gguf = sorted(name for name in names if name.endswith(".gguf"))
    if names.issuperset(RUN_DIRECTORY):
        trained = [name for name in TRAINED if name in names]
        return (
            f": it is the directory of a run, whose result is {path / trained[0]}"
            if trained
            else (": it is the directory of a run that has not ended, and so has no adapter/ or model/ yet")
        )
    if "trainer.safetensors" in names or any(name.startswith("step-") for name in names):
        return ": it is a checkpoint of a run, which --resume reads; the run's result is in its adapter/ or model/"
    if gguf:
        return f", only {gguf[0]}, {GGUF}"
    if ADAPTER_WEIGHTS in names:
        return f": it has weights of an adapter, and its {ADAPTER_CONFIG} is missing"
    weights = sorted(name for name in names if name.endswith((".safetensors", ".bin", ".pt", ".pth", ".ckpt")))
    if weights:
        return f", only {weights[0]}; copy the model's config.json beside it"
    if names.intersection(TOKENIZERS):
        return ", only a tokenizer"
    below = sorted(name for name in names if (path / name / "config.json").is_file())
    return f"; {path / below[0]} does" if below else ""


def wrong_file(folder: Path, what: str) -> str | None:
    """What is wrong with the files of a directory's `config` or `tokenizer`, as far as that can be seen in them."""
    if what == "tokenizer" and not any((folder / name).is_file() for name in TOKENIZERS):
        return f"it holds none ({TOKENIZERS[0]}, {TOKENIZERS[1]})"
    names = TOKENIZER_FILES if what == "tokenizer" else ("config.json",)
    for path in (folder / name for name in names if (folder / name).is_file()):
        try:
            json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            return f"{path.name} is not JSON: {error}"
    return None
