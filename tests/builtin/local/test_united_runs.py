"""Whole runs of a loss that reads all arrays a token, of two local teachers a row: alone, resumed, and on two ranks."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml
from helpers.torchrun import finished, torchrun

import distillkit
from builtin.local.ranks.rank_metrics import metrics
from distillkit import RunConfig

Make = Callable[..., RunConfig]
SCRIPT = '''
from typing import ClassVar
import numpy as np
from distillkit_builtin.losses.importance_sampling import ImportanceSampling

class United(ImportanceSampling):
    """An advantage that depends on every number a token."""
    name: ClassVar[str] = "united"

    def needs(self):
        return {"sampled": 1, "topk": 4, "at_ids": 1}

    def sampler_needs(self):
        return {"topk": 3, "entropy": 1}

    def inputs(self, completion):
        parts = [score.arrays["at_logprobs"] for score in completion.scores.values()]
        ids = [score.request.at_ids for score in completion.scores.values()]
        assert (ids[0] == ids[1]).all()
        assert np.isfinite(parts[0][ids[0] >= 0]).all() and np.isneginf(parts[0][ids[0] < 0]).all()
        for score in completion.scores.values():
            for table in (score.arrays["topk_ids"], completion.rollout.arrays["topk_ids"]):
                assert all(set(row) <= set(union) for row, union in zip(table.tolist(), ids[0].tolist()))
        mixed = np.exp(parts).mean(axis=0).sum(axis=1)
        arrays = completion.rollout.arrays
        own = arrays["entropy"] + np.exp(arrays["topk_logprobs"]).sum(axis=1)
        likely = sum(score.arrays["topk_logprobs"].mean(axis=1) for score in completion.scores.values())
        return {"advantages": (mixed - own - 0.1 * likely).astype(np.float32)}
'''
SAME = ("train/loss", "train/grad_norm", "train/active_tokens")


@pytest.fixture
def script(tmp_path: Path) -> Path:
    path = tmp_path / "united.py"
    path.write_text(SCRIPT)
    return path


@pytest.fixture
def make(local_config: Make, tiny_model: str, other_tiny_model: str) -> Callable[..., Mapping[str, Any]]:
    """A config's values, with plugins of the script by name."""

    def values(name: str, **train: int) -> Mapping[str, Any]:
        scorer = {"name": "local", "dtype": "float32", "device": "cpu"}
        config = local_config(name=name, train={"prompt_groups_per_step": 2, "save_every": 1, **train})
        teachers = [
            {"model": model, "route_value": route, "scorer": scorer}
            for route, model in (("a", other_tiny_model), ("b", tiny_model))
        ]
        return {**config.dump(), "teachers": teachers, "loss": "united", "router": "all"}

    return values


def run(values: Mapping[str, Any], script: Path, **more: Any) -> Any:
    return distillkit.run(values, plugins=[script], **more)


@pytest.mark.ranks
def test_two_ranks_score_and_sample_the_same_arrays_as_one(make: Callable[..., Any], script: Path) -> None:
    alone = run(make("alone"), script)
    values = make("both")
    path = script.parent / "both.yaml"
    path.write_text(yaml.safe_dump(values))
    code, output = finished(torchrun(2, str(path), "-p", str(script)))
    assert code == 0, output
    for line, expected in zip(metrics(alone.run_dir.parent / "both"), alone.metrics, strict=True):
        for name in SAME:
            assert line[name] == pytest.approx(expected[name], rel=1e-3, abs=1e-5), (line["step"], name)


def test_a_run_that_is_resumed_reads_the_arrays_that_its_checkpoint_holds(
    make: Callable[..., Any], script: Path
) -> None:
    whole = run(make("whole", max_steps_off_policy=1), script)
    kept = whole.run_dir / "checkpoints" / "step-3" / "engine.json"
    assert "at_logprobs" in kept.read_text()
    resumed = run(make("whole", max_steps_off_policy=1), script, resume=True, from_step=3)
    for name in SAME:
        assert resumed.metrics[-1][name] == whole.metrics[-1][name], name
    assert resumed.metrics[-1]["step"] == whole.metrics[-1]["step"] == 4
