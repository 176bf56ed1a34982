"""The final weights: saved at the server, and fetched from it as an adapter that PEFT loads whole, where it gives one.

Where it does not (a server without archives, tensors that only Tinker's own tools convert, no torch here to read them
back), `model/` in the run's directory says where the weights are. What is not known to be whole is never `adapter/`.
"""

import asyncio
import shutil
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

from pydantic import JsonValue

from distillkit.context import Notify
from distillkit.errors import DistillkitError, InputError, RunFailedError
from distillkit.files.atomic import replacing, write_json
from distillkit.files.permissions import apply_umask
from distillkit_builtin.hf_tokenizer import HFTokenizer
from distillkit_builtin.remote.blocking_calls import start_in_thread
from distillkit_builtin.tinker.checkpoints import new_name
from distillkit_builtin.tinker.options import TinkerStudentOptions
from distillkit_builtin.tinker.sdk import load_sdk, sdk_call
from distillkit_builtin.tinker.sdk_errors import lacks_request
from distillkit_builtin.tinker.service import TinkerService
from distillkit_builtin.tinker.trainer_connection import TrainerConnection
from distillkit_builtin.tinker.weight_download import fetch_archive, fetch_files

ADAPTER_FOLDER, MODEL_FOLDER = "adapter", "model"
EXTERNAL = "/save_weights_external"
SAVING = "saving the final weights"
READERS = ("torch", "peft")
README = """# {base}, distilled on-policy

The trained weights are `{path}` at {root}. They are not here as an adapter of PEFT: {reason}.

Sample from them there (`scorer: {{name: tinker}}` with this path as the teacher's model, or the SDK's
`create_sampling_client(model_path=...)`), or convert what the server lets you download with
`tinker_cookbook.weights.build_lora_adapter`, which knows how Tinker names its tensors.
"""


async def export(
    run_dir: Path,
    options: TinkerStudentOptions,
    connection: TrainerConnection,
    tokenizer: HFTokenizer,
    notify: Notify,
) -> Path:
    """Save the final weights; returns `adapter/`, or `model/` with the reason. Raises RunFailedError if none are saved.

    They are saved before they are fetched, and stay at the server without a time limit.
    """
    path, fetch = await _save(options, connection)
    aside = Path(await asyncio.to_thread(mkdtemp, dir=run_dir, prefix=".adapter."))
    try:
        missing = [name for name in READERS if find_spec(name) is None]
        if missing:
            raise InputError(
                f"{' and '.join(missing)}, which read it back, are not installed (pip install 'distillkit[local]')"
            )
        await sdk_call(f"fetching {path}", options.timeouts.step, lambda: fetch(aside))
        await start_in_thread(lambda: _complete(aside, options.tokenizer_source, tokenizer), "tinker: reading back")
        notify(f"the final weights also stay at the server, as {path}")
        return _put(aside, run_dir / ADAPTER_FOLDER)
    except DistillkitError as error:
        notify(f"the final weights stay at the server, as {path}: {error}", "warning")
        return _write_model_folder(run_dir, options, path, str(error))
    finally:
        shutil.rmtree(aside, ignore_errors=True)


async def _save(options: TinkerStudentOptions, connection: TrainerConnection) -> tuple[str, Callable[[Path], None]]:
    """Where the weights are sampled from at the server, and what fetches their files into a folder.

    Tinker samples from one kind of saved weights and lets another be downloaded, so that both are saved.
    """
    client, service = await connection.ensure(), connection.service
    seconds, key, name = options.timeouts.step, service.key(), new_name("final")
    path = str((await sdk_call(SAVING, seconds, lambda: client.save_weights_for_sampler(name))).path)
    external = await _save_external(service, client, new_name("final-files"), seconds)
    if external is None:
        return path, lambda folder: fetch_archive(options.root, key, path, folder, seconds)

    def fetch(folder: Path) -> None:
        rest = load_sdk().RestClient(base_url=options.root, api_key=key.reveal())
        fetch_files(rest.get_external_weights_urls(external).result(seconds).urls, folder, seconds)

    return path, fetch


async def _save_external(
    service: TinkerService,
    client: Any,  # noqa: ANN401 - the SDK's TrainingClient
    name: str,
    seconds: float,
) -> str | None:
    """The path of files to download; None where SDK or server lacks it, which not every server says beforehand."""
    lacking = service.facts is not None and service.facts.has_path(EXTERNAL) is False
    if lacking or not hasattr(client, "save_weights_external"):
        return None
    try:
        return str((await sdk_call(SAVING, seconds, lambda: client.save_weights_external(name))).path)
    except RunFailedError as error:
        if not lacks_request(error.__cause__):
            raise
        return None


def _complete(folder: Path, base: str, tokenizer: HFTokenizer) -> None:
    """What stands beside the weights. Raises InputError if PEFT would not load them whole."""
    from distillkit_builtin.local.export.model_card import model_card
    from distillkit_builtin.tinker.adapter_check import complete_adapter

    complete_adapter(folder, base)
    tokenizer.inner.save_pretrained(folder)
    (folder / "README.md").write_text(model_card(base, "", is_adapter=True), encoding="utf-8")


def _put(aside: Path, folder: Path) -> Path:
    shutil.rmtree(folder, ignore_errors=True)
    apply_umask(aside)
    aside.rename(folder)
    return folder


def _write_model_folder(run_dir: Path, options: TinkerStudentOptions, path: str, reason: str) -> Path:
    folder = run_dir / MODEL_FOLDER
    folder.mkdir(exist_ok=True)
    record: dict[str, JsonValue] = {
        "base_model": options.model,
        "lora_rank": options.lora_rank,
        "weights": path,
        "service": options.root,
        "reason": reason,
    }
    write_json(folder / "model.json", record)
    readme = README.format(base=options.model, path=path, root=options.root, reason=reason.rstrip("."))
    with replacing(folder / "README.md") as file:
        file.write_text(readme, encoding="utf-8")
    return folder
