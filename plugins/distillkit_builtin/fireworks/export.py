"""The final weights: saved, made a model of, and `model/` in the run's directory, which says where they are."""

import contextlib
from pathlib import Path

from pydantic import JsonValue

from distillkit.errors import RunFailedError
from distillkit.files.atomic import replacing, write_json
from distillkit_builtin.fireworks.blocking_calls import call_in_thread
from distillkit_builtin.fireworks.control_plane import ControlPlane
from distillkit_builtin.fireworks.options import FireworksStudentOptions
from distillkit_builtin.fireworks.trainer_connection import TrainerConnection
from distillkit_builtin.fireworks.trainer_watch import TrainerWatch

PROMOTED = """The trained model is `{model}` at Fireworks. Deploy it as any other:

    firectl deployment create {model}
"""
SAVED = """The trained weights are the snapshot `{snapshot}` of trainer job `{trainer}` at Fireworks. Make it a model:

    from fireworks.training.sdk import TrainerJobManager
    manager = TrainerJobManager(api_key=os.environ["FIREWORKS_API_KEY"])
    rows = [row for row in manager.list_checkpoints("{trainer}") if row["promotable"]]
    manager.promote_checkpoint(name=rows[-1]["name"], output_model_id="MY-MODEL", base_model="{base}")

or run with `student.output_model_id` set.
"""
NOT_SAVED = "No final weights were saved (`save_final_checkpoint: false`); the run's last checkpoint has them.\n"


async def export(
    run_dir: Path, options: FireworksStudentOptions, connection: TrainerConnection, watch: TrainerWatch
) -> Path:
    """Save the final weights, promote them if that is requested; returns `model/`. Raises RunFailedError."""
    snapshot = model = None
    before = await _promotable(watch) if options.output_model_id else []
    if options.save_final_checkpoint or options.output_model_id:
        kind = None if options.lora_rank else "base"  # a delta to the last published weights is no model
        snapshot = await watch.call(
            "saving the final weights",
            options.timeouts.step,
            lambda: str(connection.client.save_weights_for_sampler_ext("final", checkpoint_type=kind).path),
        )
        if options.output_model_id:
            checkpoint = _find_checkpoint(snapshot, before, await _promotable(watch), options.output_model_id)
            _write_model_folder(
                run_dir, options, connection, snapshot, None
            )  # so that the snapshot is known if that fails
            model = await _promote(watch.base_url, checkpoint, options.output_model_id, options)
    return _write_model_folder(run_dir, options, connection, snapshot, model)


async def _promotable(watch: TrainerWatch) -> list[str]:
    def ask() -> list[str]:
        with contextlib.closing(ControlPlane(watch.base_url)) as control:
            return [str(row["name"]) for row in control.checkpoints(watch.job) if row.get("promotable")]

    return await call_in_thread("listing the trainer's checkpoints", watch.timeout, ask)


def _find_checkpoint(snapshot: str, before: list[str], now: list[str], model_id: str) -> str:
    """The service may call the snapshot something else; then it is the one that was not there before."""
    named = [row for row in now if row.rpartition("/")[2] == snapshot.rpartition("/")[2]]
    found = named or [row for row in now if row not in before]
    if not found:
        raise RunFailedError(
            f"promoting to {model_id!r}: the final weights {snapshot!r} are not among the trainer's promotable "
            f"checkpoints: {', '.join(now) or 'none'}"
        )
    return found[-1]


async def _promote(base_url: str, checkpoint: str, model_id: str, options: FireworksStudentOptions) -> str:
    def work() -> str:
        with contextlib.closing(ControlPlane(base_url)) as control:
            promoted = control.promote(checkpoint, model_id, options.model)
        return str(promoted.get("name") or model_id)

    try:
        return await call_in_thread(f"promoting {checkpoint} to {model_id!r}", options.timeouts.promotion, work)
    except RunFailedError as error:
        raise RunFailedError(
            f"{error} (student.timeouts.promotion: {options.timeouts.promotion:g} s); the weights are saved, the "
            "service may still finish it, and --resume promotes again"
        ) from error


def _write_model_folder(
    run_dir: Path,
    options: FireworksStudentOptions,
    connection: TrainerConnection,
    snapshot: str | None,
    model: str | None,
) -> Path:
    folder = run_dir / "model"
    folder.mkdir(exist_ok=True)
    record: dict[str, JsonValue] = {
        "base_model": options.model,
        "lora_rank": options.lora_rank,
        "trainer_job_id": connection.trainer_job,
        "deployment_id": connection.deployment,
        "snapshot": snapshot,
        "model": model,
    }
    write_json(folder / "model.json", record)
    text = PROMOTED if model else SAVED if snapshot else NOT_SAVED
    readme = text.format(model=model, snapshot=snapshot, trainer=connection.trainer_job, base=options.model)
    with replacing(folder / "README.md") as aside:
        aside.write_text(f"# {options.model}, distilled on-policy\n\n{readme}", encoding="utf-8")
    return folder
