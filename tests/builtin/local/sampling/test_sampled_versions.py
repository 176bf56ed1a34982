"""Completions of a run are of exactly the version that they name."""

import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.model_families import random_model, write_quantized
from helpers.tiny_models import write_tokenizer
from peft import PeftModel
from transformers import AutoModelForCausalLM

import distillkit
from builtin.local.conftest import plain_logprobs
from builtin.local.sampling.moving_policies import QUANTIZED
from distillkit import RunConfig
from distillkit.records import Rollout
from distillkit_builtin.local.export.export import write_weights
from distillkit_builtin.local.live_student import LiveLocalStudent
from distillkit_builtin.local.model.causal_lm import PromptAndResponse
from distillkit_builtin.local.training.trainer import Trainer

pytestmark = pytest.mark.filterwarnings("ignore")


def saved(base: str, folder: Path) -> torch.nn.Module:
    """The policy that `write_weights` wrote, as others load it."""
    if (folder / "model").is_dir():
        whole: torch.nn.Module = AutoModelForCausalLM.from_pretrained(folder / "model", dtype=torch.float32)
        return whole
    frozen = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    return PeftModel.from_pretrained(frozen, folder / "adapter")


@pytest.fixture
def watched(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[Rollout]:
    """Rollouts of the runs to come; the weights of each version are written into a folder of its number."""
    rollouts: list[Rollout] = []
    sample, apply = LiveLocalStudent.sample, Trainer.apply_gradient

    async def record(self: LiveLocalStudent, requests: Any) -> Any:
        async for rollout in sample(self, requests):
            rollouts.append(rollout)
            yield rollout

    def write(self: Trainer) -> dict[str, float]:
        write_weights(self.policy, tmp_path / "versions" / str(self.scheduler.last_epoch))
        metrics = apply(self)
        write_weights(self.policy, tmp_path / "versions" / str(self.scheduler.last_epoch))
        return metrics

    monkeypatch.setattr(LiveLocalStudent, "sample", record)
    monkeypatch.setattr(Trainer, "apply_gradient", write)
    return rollouts


@pytest.mark.parametrize("train", [{"weight_sync_interval": 4}, {"max_steps_off_policy": 2}], ids=str)
@pytest.mark.parametrize(
    "kind", ["llama", "llama, all weights", "qwen3_moe", "llama 4 bit", "llama, beside", "qwen3_moe, beside"]
)
def test_each_completion_is_of_the_version_that_it_names(
    kind: str,
    train: Mapping[str, int],
    watched: list[Rollout],
    local_config: Callable[..., RunConfig],
    tmp_path: Path,
) -> None:
    if kind in QUANTIZED:
        base = write_quantized(tmp_path, **QUANTIZED[kind])
    else:
        base = str(tmp_path / "base")
        random_model(kind.partition(",")[0]).save_pretrained(base)
        write_tokenizer(Path(base))
    whole = kind.endswith("all weights")
    options: dict[str, Any] = {"model": base, "lora_rank": 0 if whole else 4, "learning_rate": 0.01 if whole else 0.05}
    if kind.endswith("beside"):
        options["sampling_weights"] = "adapter"
    over = {"student": options, "train": {"prompt_groups_per_step": 1, "max_steps": 6, **train}}
    distillkit.run(local_config(**over, sampling={"completions_per_prompt": 2, "max_completion_tokens": 5}))
    versions = {rollout.policy_version for rollout in watched}
    assert len(watched) == 12
    assert versions == ({0, 4} if "weight_sync_interval" in train else {0, 1, 2, 3})
    with warnings.catch_warnings(), torch.no_grad():
        models = {version: saved(base, tmp_path / "versions" / str(version)).eval() for version in versions}
        for rollout in watched:
            item = PromptAndResponse(rollout.request.prompt_ids, rollout.token_ids)
            expected = plain_logprobs(models[rollout.policy_version], item)
            # On some CPUs bitsandbytes computes in bfloat16.
            close = 0.03 if kind in QUANTIZED else 1e-4
            torch.testing.assert_close(torch.tensor(rollout.logprobs), expected, atol=close, rtol=close)
        latest = models[max(versions)]
        moved = [PromptAndResponse(r.request.prompt_ids, r.token_ids) for r in watched if r.policy_version == 0]
        assert any(not torch.allclose(plain_logprobs(latest, i), plain_logprobs(models[0], i), atol=0.1) for i in moved)
