"""Tiny quantized checkpoints as teacher and as LoRA base on a device: `tests/scripts/quantized_on_device.py cuda`.

Prints how far logprobs on the device are from those of the same numbers as plain float32 weights on the CPU, what
`check` says, and whether completions sampled before the first sync are of version 0. Ends with code 1 if something is
not as it should be. Needs no network; what no package here reads is said and left out.
"""

import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import AutoModelForCausalLM
from transformers.utils import logging

TESTS = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(TESTS))

from helpers.model_families import write_quantized  # noqa: E402
from helpers.quantized_checkpoints import Checkpoint, write_compressed, write_fp8, write_mxfp4  # noqa: E402

import distillkit  # noqa: E402
from distillkit import InputError, Rollout, RunConfig  # noqa: E402
from distillkit.arrays import token_ids  # noqa: E402
from distillkit.testing import make_context  # noqa: E402
from distillkit_builtin.local.device import Device  # noqa: E402
from distillkit_builtin.local.live_student import LiveLocalStudent  # noqa: E402
from distillkit_builtin.local.model.causal_lm import CausalLM, PromptAndResponse  # noqa: E402
from distillkit_builtin.local.student import LocalStudent  # noqa: E402

CLOSE = {torch.float32: 1e-3, torch.bfloat16: 1.5}
"""Nats of single tokens: distributions of tiny random models are sharp, and bfloat16 moves an expert's choice."""


def bitsandbytes(folder: Path, **options: Any) -> Checkpoint:
    return Checkpoint(write_quantized(folder, **options), "")


WRITERS: dict[str, Callable[[Path], Checkpoint]] = {
    "fp8, blocks of 128": write_fp8,
    "fp8, partial blocks": lambda folder: write_fp8(folder, intermediate_size=192),
    "fp8, a scale a weight": lambda folder: write_fp8(folder, None),
    "fp8, experts": lambda folder: write_fp8(folder, kind="qwen3_moe", moe_intermediate_size=128),
    "mxfp4": write_mxfp4,
    "compressed-tensors, fp8": lambda folder: write_compressed(folder, "float-quantized"),
    "bitsandbytes, 4 bits": lambda folder: bitsandbytes(folder, load_in_4bit=True),
    "bitsandbytes, 8 bits": lambda folder: bitsandbytes(folder, load_in_8bit=True, llm_int8_threshold=0.0),
}


@torch.no_grad()
def logprobs(causal_lm: CausalLM, *items: PromptAndResponse) -> torch.Tensor:
    return torch.cat([causal_lm.response_logprobs([item]) for item in items]).cpu()


def items() -> list[PromptAndResponse]:
    ids = np.random.default_rng(0).integers(5, 250, 60)
    return [
        PromptAndResponse(token_ids(ids[:9]), token_ids(ids[9:30])),
        PromptAndResponse(token_ids(ids[30:36]), token_ids(ids[36:])),
    ]


def teacher(checkpoint: Checkpoint, device: torch.device) -> tuple[str, bool]:
    """How far it is from its plain numbers, in both formats."""
    found, right = [], True
    for dtype in (torch.float32, torch.bfloat16):
        ours = logprobs(CausalLM.load(checkpoint.packed, Device(device), dtype, dtype), *items())
        if not checkpoint.plain:
            found.append(f"computes in {dtype}")
            continue
        model = AutoModelForCausalLM.from_pretrained(checkpoint.plain, dtype=torch.float32, attn_implementation="eager")
        reference = logprobs(CausalLM(model, Device(torch.device("cpu")), torch.float32), *items())
        difference = float((ours - reference).abs().max())
        right &= difference < CLOSE[dtype]
        found.append(f"{difference:.1e} in {str(dtype).removeprefix('torch.')}")
    return "teacher " + ", ".join(found), right


@contextmanager
def watched() -> Iterator[list[Rollout]]:
    """The completions that students sample meanwhile."""
    rollouts: list[Rollout] = []
    sample = LiveLocalStudent.sample

    async def record(self: LiveLocalStudent, *given: Any) -> Any:
        async for rollout in sample(self, *given):
            rollouts.append(rollout)
            yield rollout

    LiveLocalStudent.sample = record  # type: ignore[method-assign, assignment]
    try:
        yield rollouts
    finally:
        LiveLocalStudent.sample = sample  # type: ignore[method-assign]


def lora(checkpoint: Checkpoint, device: torch.device, folder: Path) -> tuple[str, bool]:
    """A run of four steps whose sampler is synced after the third."""
    folder.mkdir(parents=True)
    (folder / "rows.jsonl").write_text('{"messages": [{"role": "user", "content": "hello"}]}\n' * 8)
    here = {"name": "local", "device": str(device), "dtype": "float32"}
    config = RunConfig(
        name="run",
        log_path=str(folder / "run"),
        data={"path": str(folder / "rows.jsonl")},
        student={**here, "model": checkpoint.packed, "lora_rank": 4, "learning_rate": 0.05},
        teachers=[{"model": checkpoint.plain or checkpoint.packed, "scorer": here}],
        sampling={"completions_per_prompt": 2, "max_completion_tokens": 12},
        train={"prompt_groups_per_step": 1, "max_steps": 4, "weight_sync_interval": 3},
        probe={"at_start": "never"},
        sinks=[],
    )
    with watched() as rollouts:
        result = distillkit.run(config)
    base = CausalLM.load(checkpoint.packed, Device(device), torch.float32, torch.float32)
    first = [rollout for rollout in rollouts if rollout.policy_version == 0]
    asked = [PromptAndResponse(rollout.request.prompt_ids, rollout.token_ids) for rollout in first]
    sampled = torch.cat([torch.tensor(rollout.logprobs) for rollout in first])
    apart = float((logprobs(base, *asked) - sampled).abs().max())
    assert result.adapter_path is not None
    written = "not what was trained" not in (result.adapter_path / "README.md").read_text()
    versions = sorted({rollout.policy_version for rollout in rollouts})
    return f"LoRA of versions {versions}, version 0 apart {apart:.1e}", apart < 0.05 and written and versions == [0, 3]


def main(name: str) -> int:
    warnings.filterwarnings("ignore")
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    device, wrong = torch.device(name), 0
    with tempfile.TemporaryDirectory() as folder:
        for number, (kind, write) in enumerate(WRITERS.items()):
            start = time.monotonic()
            try:
                checkpoint = write(Path(folder) / str(number))
                note = LocalStudent(model=checkpoint.packed, device=name).check(make_context()).notes[0]
                said, right = teacher(checkpoint, device)
                trained, isolated = lora(checkpoint, device, Path(folder) / f"run {number}")
            except (InputError, ImportError) as error:
                print(f"-     {kind}: {str(error).partition(chr(10))[0][:200]}")
                continue
            wrong += not (right and isolated)
            seconds = time.monotonic() - start
            print(f"{'right' if right and isolated else 'WRONG'} {kind}: {said}; {trained}; {seconds:.0f} s")
            print(f"      {note.rpartition('packed, ')[2]}")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1] if len(sys.argv) > 1 else "cuda"))
