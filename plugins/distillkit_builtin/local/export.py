"""The trained weights as others load them: a PEFT adapter, or a whole model; in an export with tokenizer and card."""

import json
from pathlib import Path

from distillkit_builtin.hf_tokenizer import HFTokenizer
from distillkit_builtin.local.policy import Policy

CARD = """---
{base_model}library_name: {library}
pipeline_tag: text-generation
tags:
- distillkit
- on-policy-distillation
---

# {title}

{base} trained by on-policy distillation with distillkit: the student sampled its own completions, a frozen teacher
scored exactly those tokens, and `teacher_logprob - sampling_logprob` trained it through an importance-sampling loss.

```python
{usage}
```

`config.yaml` and `summary.json` of the run say what it was trained on and how it did on held-out prompts. State here,
before publishing, what the model is for, what data it saw, and its licence.
"""
ADAPTER_USAGE = """from peft import PeftModel
from transformers import AutoModelForCausalLM

model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained("{base}"), "path/to/adapter")"""
MODEL_USAGE = """from transformers import AutoModelForCausalLM

model = AutoModelForCausalLM.from_pretrained("path/to/model")"""


def write_weights(policy: Policy, folder: Path) -> Path:
    """Write `adapter/` or `model/` below `folder`, as a server loads it: weights and config; returns its path.

    Where weights are sharded, every rank must call `Policy.whole_weights` at the same time.
    """
    adapter = policy.causal_lm.adapter
    if adapter is None:
        path = folder / "model"
        policy.causal_lm.model.save_pretrained(path, state_dict=policy.whole_weights())
        return path
    path = folder / "adapter"
    # Its own tensors alone: to ask bitsandbytes for a base's tensors makes it repack them, on a CPU into wrong ones.
    adapter.save_pretrained(str(path), state_dict=dict(policy.trained))
    (path / "README.md").unlink(missing_ok=True)  # PEFT's own card, which names the directory of the base model
    return path


def export(policy: Policy, tokenizer: HFTokenizer, run_dir: Path, base: str) -> Path:
    """Write weights, tokenizer and model card below `run_dir`; returns their directory. `base`: `student.model`."""
    path = write_weights(policy, run_dir)
    tokenizer.inner.save_pretrained(path)
    (path / "README.md").write_text(_card(base, is_adapter=policy.causal_lm.adapter is not None), encoding="utf-8")
    return path


def _card(base: str, *, is_adapter: bool) -> str:
    """A card that holds on every machine: a model in a directory is named, and where the directory is, is not said."""
    hub_name = _hub_name(base)
    name = hub_name or Path(base).resolve().name
    usage = (ADAPTER_USAGE if is_adapter else MODEL_USAGE).format(base=hub_name or f"path/to/{name}")
    return CARD.format(
        base=name,
        base_model=f"base_model: {hub_name}\n" if hub_name else "",
        library="peft" if is_adapter else "transformers",
        title=f"{Path(name).name}, distilled on-policy",
        usage=usage,
    )


def _hub_name(base: str) -> str | None:
    """The hub's name of the base model; a directory has none, unless distillkit wrote down where it came from."""
    if not Path(base).is_dir():
        return base
    provenance = Path(base) / "PROVENANCE.json"
    return str(json.loads(provenance.read_text(encoding="utf-8"))["model"]) if provenance.is_file() else None
