"""The trained weights as others load them: a PEFT adapter, or a whole model, with a model card."""

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


def _base_model_line(base: str) -> str:
    """The hub's name of the base model; a directory has none, unless distillkit wrote down where it came from."""
    if not Path(base).is_dir():
        return f"base_model: {base}\n"
    provenance = Path(base) / "PROVENANCE.json"
    return f"base_model: {json.loads(provenance.read_text())['model']}\n" if provenance.is_file() else ""


def write_weights(policy: Policy, tokenizer: HFTokenizer, parent: Path, base: str) -> Path:
    """Write `adapter/` or `model/` below `parent`; returns it."""
    if policy.causal_lm.adapter is not None:
        path = parent / "adapter"
        policy.causal_lm.adapter.save_pretrained(str(path))
    else:
        path = parent / "model"
        policy.causal_lm.model.save_pretrained(path, state_dict=policy.whole_weights())
    tokenizer.inner.save_pretrained(path)
    usage = (ADAPTER_USAGE if policy.causal_lm.adapter is not None else MODEL_USAGE).format(base=base)
    library = "peft" if policy.causal_lm.adapter is not None else "transformers"
    title = f"{Path(base).name}, distilled on-policy"
    card = CARD.format(base=base, base_model=_base_model_line(base), library=library, title=title, usage=usage)
    (path / "README.md").write_text(card, encoding="utf-8")
    return path
