"""What a run on a real Tinker server exports: an adapter that PEFT loads whole, and that is the served model."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from peft import PeftModel, get_peft_model_state_dict
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from distillkit.records import Rollout
from distillkit.testing import make_context
from servers.scoring import FLOAT32
from servers.skyrl.skyrl_process import SkyrlProcess
from servers.skyrl.students import batch_of, opened, sampled, tinker_student

pytestmark = pytest.mark.servers


def logprobs(model: torch.nn.Module, rollout: Rollout) -> np.ndarray:
    """[R] of a completion, by transformers' own forward."""
    prompt, response = rollout.request.prompt_ids, rollout.token_ids
    ids = torch.tensor([[*prompt.tolist(), *response.tolist()]])
    with torch.no_grad():
        table = model(input_ids=ids).logits[0, len(prompt) - 1 : -1].log_softmax(-1)
    found: np.ndarray = table.gather(1, ids[0, len(prompt) :, None])[:, 0].numpy()
    return found


async def test_the_adapter_loads_whole_and_is_the_served_model(
    server: SkyrlProcess, tiny: Path, tmp_path: Path
) -> None:
    async with opened(tinker_student(server, tiny), replace(make_context(), run_dir=tmp_path)) as student:
        await student.sync(await student.publish(0))
        batch = batch_of(await sampled(student, tiny))
        for _ in range(2):
            await student.train(batch)
        await student.sync(await student.publish(2))
        served = await sampled(student, tiny)
        adapter = await student.export(tmp_path)
    assert adapter == tmp_path / "adapter"
    base = AutoModelForCausalLM.from_pretrained(
        tiny, dtype=torch.float32, trust_remote_code=False, use_safetensors=True
    )
    without = [logprobs(base, rollout) for rollout in served]
    model = PeftModel.from_pretrained(base, str(adapter)).eval()
    loaded, file = get_peft_model_state_dict(model), load_file(adapter / "adapter_model.safetensors")
    assert loaded.keys() == file.keys()
    assert all(torch.equal(loaded[name], file[name]) for name in file)
    for rollout, before in zip(served, without, strict=True):
        np.testing.assert_allclose(logprobs(model, rollout), rollout.logprobs, atol=FLOAT32)
        assert np.abs(before - rollout.logprobs).max() > 0.1  # the two steps did something
