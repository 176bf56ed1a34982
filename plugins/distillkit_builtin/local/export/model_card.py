"""The model card that stands beside exported weights: what they are, and how they are loaded."""

import json
from pathlib import Path

from distillkit_builtin.hf_tokenizer import HFTokenizer
from distillkit_builtin.local.model_files.model_class import auto_class
from distillkit_builtin.local.model_files.model_config import read_config
from distillkit_builtin.model_source import ModelSource, resolve_model

CARD = """---
{base_model}library_name: {library}
pipeline_tag: text-generation
tags:
- distillkit
- on-policy-distillation
---

# {title}

{base} trained by on-policy distillation with distillkit: the student sampled its own completions, a teacher scored
exactly those tokens, and the gap between the two trained it, by the loss that the run's `config.yaml` names.

```python
{usage}
```
{notes}
`config.yaml` and `summary.json` of the run say what it was trained on and how it did on held-out prompts. State here,
before publishing, what the model is for, what data it saw, and its licence.
"""
ADAPTER_USAGE = """from peft import PeftModel
from transformers import {kind}

model = PeftModel.from_pretrained({kind}.from_pretrained("{base}"), "path/to/adapter")"""
MODEL_USAGE = """from transformers import {kind}

model = {kind}.from_pretrained("path/to/model")"""
MERGED_BASE = """
The adapter is for the model in `base/`, which the run wrote beside `adapter/`: {base}. Keep the two together.
"""
ENDS = """
In training completions also ended at {ends}, none of the model's own ends, which the files here do not say: whoever
serves it has to (`stop_token_ids: {ids}` in vLLM's requests, `eos_token_id={all_ids}` for `generate` of transformers).
"""
MERGED = """
The LoRA that was trained is merged into the weights, which are {dtype}.
"""


def ends_note(tokenizer: HFTokenizer, stop_ids: tuple[int, ...]) -> str:
    """What the card says of ids that ended completions, and are none of the model's own ends; nothing without any."""
    ids = [index for index in stop_ids if index not in tokenizer.eos_ids]
    if not ids:
        return ""
    ends = ", ".join(f"`{tokenizer.show([index])}` (id {index})" for index in ids)
    return ENDS.format(ends=ends, ids=ids, all_ids=[*tokenizer.eos_ids, *ids])


def model_card(base: str, ends: str, *, is_adapter: bool) -> str:
    """A card that holds on every machine: a model in a directory is named, and where the directory is, is not said."""
    source = resolve_model(base)
    hub_name = _hub_name(source.base)
    name = hub_name or Path(source.base).resolve().name
    merged = f"{name} with {_adapters(source)} merged into it" if source.adapters else name
    needed = "path/to/base" if source.adapters else hub_name or f"path/to/{name}"
    kind = auto_class(read_config(base)).__name__  # by another one an adapter's names would fit nothing
    return CARD.format(
        base=f"{merged}," if source.adapters else name,
        base_model=f"base_model: {hub_name}\n" if hub_name else "",
        library="peft" if is_adapter else "transformers",
        title=f"{Path(name).name}, distilled on-policy",
        usage=(ADAPTER_USAGE if is_adapter else MODEL_USAGE).format(base=needed, kind=kind),
        notes=(MERGED_BASE.format(base=merged) if source.adapters and is_adapter else "") + ends,
    )


def _adapters(source: ModelSource) -> str:
    names = [f"`{folder.name}`" for folder in source.adapters]
    return f"the adapter {names[0]}" if len(names) == 1 else f"the adapters {', '.join(names)}"


def _hub_name(base: str) -> str | None:
    """The hub's name of the base model; a directory has none, unless distillkit wrote down where it came from."""
    if not Path(base).is_dir():
        return base
    provenance = Path(base) / "PROVENANCE.json"
    return str(json.loads(provenance.read_text(encoding="utf-8"))["model"]) if provenance.is_file() else None
