"""The trained weights as others load them: a PEFT adapter, or a whole model; in an export with tokenizer and card."""

import json
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from distillkit_builtin.hf_tokenizer import HFTokenizer
from distillkit_builtin.local.export_check import export_problem
from distillkit_builtin.local.load_weights import load_weights
from distillkit_builtin.local.lora import ADAPTER
from distillkit_builtin.local.policy import Policy
from distillkit_builtin.model_source import ModelSource, resolve_model

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
{notes}
`config.yaml` and `summary.json` of the run say what it was trained on and how it did on held-out prompts. State here,
before publishing, what the model is for, what data it saw, and its licence.
"""
ADAPTER_USAGE = """from peft import PeftModel
from transformers import AutoModelForCausalLM

model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained("{base}"), "path/to/adapter")"""
MODEL_USAGE = """from transformers import AutoModelForCausalLM

model = AutoModelForCausalLM.from_pretrained("path/to/model")"""
MERGED_BASE = """
The adapter is for the model in `base/`, which the run wrote beside `adapter/`: {base}. Keep the two together.
"""
ENDS = """
In training completions also ended at {ends}, none of the model's own ends, which the files here do not say: whoever
serves it has to (`stop_token_ids: {ids}` in vLLM's requests, `eos_token_id={all_ids}` for `generate` of transformers).
"""
BAD_EXPORT = "what others load from {path} is not what was trained: {problem}. The weights are there; please report it"


def write_weights(policy: Policy, folder: Path, whole: dict[str, Tensor] | None = None) -> Path:
    """Write `adapter/` or `model/` below `folder`, as a server loads it: weights and config; returns its path.

    Where weights are sharded, every rank must call `Policy.whole_weights` at the same time, unless `whole` is that.
    """
    adapter = policy.causal_lm.adapter
    if adapter is None:
        path = folder / "model"
        policy.causal_lm.model.save_pretrained(path, state_dict=policy.whole_weights() if whole is None else whole)
        return path
    path = folder / "adapter"
    # Its own tensors alone: to ask bitsandbytes for a base's tensors makes it repack them, on a CPU into wrong ones.
    adapter.save_pretrained(str(path), state_dict=dict(policy.trained))
    (path / "README.md").unlink(missing_ok=True)  # PEFT's own card, which names the directory of the base model
    return path


@dataclass(frozen=True, slots=True)
class Exported:
    """What was written."""

    path: Path
    problem: str | None
    """Why what others load from it is not what was trained, for the user; None as it should be."""


def export(
    policy: Policy, tokenizer: HFTokenizer, run_dir: Path, base: str, stop_ids: tuple[int, ...] = ()
) -> Exported:
    """Write weights, tokenizer and model card below `run_dir`, and read the weights back. `base`: `student.model`.

    `stop_ids` ended completions in training; the card says which are not ends to who loads it.

    An adapter's config names its base model as PEFT needs it: by its name on the hub, or by the whole path of its
    directory. Where adapters were merged into the model that was trained on, that model is written into `base/`.
    """
    whole = policy.whole_weights() if policy.causal_lm.adapter is None else None
    if policy.causal_lm.adapter is not None:
        policy.causal_lm.adapter.peft_config[ADAPTER].base_model_name_or_path = _written_base(
            policy, tokenizer, run_dir, base
        )
    path = write_weights(policy, run_dir, whole)
    tokenizer.inner.save_pretrained(path)
    problem = export_problem(policy, path, whole)
    said = None if problem is None else BAD_EXPORT.format(path=path, problem=problem.rstrip("."))
    card = _card(base, _ends(tokenizer, stop_ids), is_adapter=policy.causal_lm.adapter is not None)
    (path / "README.md").write_text(card if said is None else f"{card}\n**{said}**\n", encoding="utf-8")
    return Exported(path, said)


def _written_base(policy: Policy, tokenizer: HFTokenizer, run_dir: Path, base: str) -> str:
    """The name of the base model of an adapter, for its config: PEFT cannot merge one adapter below another."""
    source = resolve_model(base)
    if not source.adapters:
        return str(Path(base).resolve()) if Path(base).is_dir() else base
    folder = (run_dir / "base").resolve()
    load_weights(source, policy.causal_lm.dtype).save_pretrained(folder)
    tokenizer.inner.save_pretrained(folder)
    return str(folder)


def _ends(tokenizer: HFTokenizer, stop_ids: tuple[int, ...]) -> str:
    """What the card says of ids that ended completions, and are none of the model's own ends; nothing without any."""
    ids = [index for index in stop_ids if index not in tokenizer.eos_ids]
    if not ids:
        return ""
    ends = ", ".join(f"`{tokenizer.show([index])}` (id {index})" for index in ids)
    return ENDS.format(ends=ends, ids=ids, all_ids=[*tokenizer.eos_ids, *ids])


def _card(base: str, ends: str, *, is_adapter: bool) -> str:
    """A card that holds on every machine: a model in a directory is named, and where the directory is, is not said."""
    source = resolve_model(base)
    hub_name = _hub_name(source.base)
    name = hub_name or Path(source.base).resolve().name
    merged = f"{name} with {_adapters(source)} merged into it" if source.adapters else name
    needed = "path/to/base" if source.adapters else hub_name or f"path/to/{name}"
    return CARD.format(
        base=f"{merged}," if source.adapters else name,
        base_model=f"base_model: {hub_name}\n" if hub_name else "",
        library="peft" if is_adapter else "transformers",
        title=f"{Path(name).name}, distilled on-policy",
        usage=(ADAPTER_USAGE if is_adapter else MODEL_USAGE).format(base=needed),
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
