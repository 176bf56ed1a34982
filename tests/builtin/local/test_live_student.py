"""What the student holds and writes where it samples by itself, and where another sampler does."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from distillkit.arrays import frozen_array, token_ids
from distillkit.context import RunContext
from distillkit.testing import make_context
from distillkit.training_data import Batch, Datum
from distillkit.types import SampleKey
from distillkit_builtin.local import build_student
from distillkit_builtin.local.live_student import LiveLocalStudent
from distillkit_builtin.local.options import LocalStudentOptions
from distillkit_builtin.losses.importance_sampling import importance_sampling

ADAPTER = {"adapter_config.json", "adapter_model.safetensors"}
MODEL = {"config.json", "generation_config.json", "model.safetensors"}


@pytest.fixture
def run(tmp_path: Path) -> RunContext:
    return replace(make_context(), run_dir=tmp_path)


def options(model: str, **over: Any) -> LocalStudentOptions:
    return LocalStudentOptions(model=model, dtype="float32", device="cpu", lora_rank=4, **over)


def batch() -> Batch:
    inputs = {
        name: frozen_array([value] * 3, "float32")
        for name, value in (("sampling_logprobs", -3.0), ("advantages", 1.0), ("weights", 1.0))
    }
    datum = Datum(SampleKey("1-x", 0, 0), token_ids([5, 6]), token_ids([7, 8, 9]), inputs)
    return Batch("importance_sampling", {"ratio_log_cap": 20.0}, (datum,), importance_sampling)


@pytest.fixture
def copies(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """Every sampling copy that is made."""
    made: list[object] = []
    original = build_student.SamplingCopy
    monkeypatch.setattr(build_student, "SamplingCopy", lambda *args, **how: made.append(args) or original(*args, **how))
    return made


async def test_no_sampling_copy_is_made_where_another_sampler_samples(
    run: RunContext, tiny_model: str, copies: list[object]
) -> None:
    live = await LiveLocalStudent.open(run, options(tiny_model), samples=False)
    assert live.sampling is None
    assert copies == []
    await live.train(batch())
    assert (await live.publish(1, to_disk=True)).path is not None
    with pytest.raises(RuntimeError, match="was opened for another sampler"):
        await anext(live.sample([]))
    with pytest.raises(RuntimeError, match="was opened for another sampler"):
        await anext(live.score([]))
    await LiveLocalStudent.open(run, options(tiny_model), samples=True)
    assert len(copies) == 1


@pytest.mark.parametrize(("over", "name", "files"), [({}, "adapter", ADAPTER), ({"lora_rank": 0}, "model", MODEL)])
async def test_a_sync_writes_what_a_server_loads_and_an_export_what_people_need(
    run: RunContext, tiny_model: str, tmp_path: Path, over: dict[str, Any], name: str, files: set[str]
) -> None:
    live = await LiveLocalStudent.open(run, options(tiny_model).model_copy(update=over), samples=False)
    await live.train(batch())
    published = await live.publish(1, to_disk=True)
    assert published.path == tmp_path / "weights" / "version-1" / name
    assert {path.name for path in published.path.iterdir()} == files
    exported = await live.export(tmp_path)
    assert exported == tmp_path / name
    assert {path.name for path in exported.iterdir()} >= {*files, "README.md", "tokenizer.json"}
    weights = next(file for file in files if file.endswith(".safetensors"))
    ours, theirs = (load_file(folder / weights) for folder in (published.path, exported))
    assert all(torch.equal(ours[key], theirs[key]) for key in ours.keys() | theirs.keys())


async def test_two_versions_stay_on_disk(run: RunContext, tiny_model: str, tmp_path: Path) -> None:
    live = await LiveLocalStudent.open(run, options(tiny_model), samples=False)
    for version in range(4):
        await live.publish(version, to_disk=True)
    assert {path.name for path in (tmp_path / "weights").iterdir()} == {"version-2", "version-3"}
