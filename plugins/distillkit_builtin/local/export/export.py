"""The trained weights as others load them: a PEFT adapter, or a whole model; in an export with tokenizer and card."""

from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from distillkit.files.permissions import apply_umask
from distillkit_builtin.hf_tokenizer import HFTokenizer
from distillkit_builtin.local.export.export_check import export_problem
from distillkit_builtin.local.export.export_dtype import in_formats_of, say_dtype, written_dtype
from distillkit_builtin.local.export.model_card import ends_note, model_card
from distillkit_builtin.local.export.processor_files import copy_processor_files
from distillkit_builtin.local.lora.lora import ADAPTER
from distillkit_builtin.local.model.load_weights import load_weights
from distillkit_builtin.local.option_types import ExportDType
from distillkit_builtin.local.training.policy import Policy
from distillkit_builtin.model_source import resolve_model

BAD_EXPORT = "what others load from {path} is not what was trained: {problem}. The weights are there; please report it"


def write_weights(policy: Policy, folder: Path, whole: dict[str, Tensor] | None = None) -> Path:
    """Write `adapter/` or `model/` below `folder`, as a server loads it: weights and config; returns its path.

    Where weights are sharded, every rank must call `Policy.whole_weights` at the same time, unless `whole` is that.
    """
    adapter = policy.causal_lm.adapter
    if adapter is None:
        path = folder / "model"
        policy.causal_lm.model.save_pretrained(path, state_dict=policy.whole_weights() if whole is None else whole)
        apply_umask(path)  # a server of another user reads them
        return path
    path = folder / "adapter"
    # Its own tensors alone: to ask bitsandbytes for a base's tensors makes it repack them, on a CPU into wrong ones.
    adapter.save_pretrained(str(path), state_dict=dict(policy.trained))
    (path / "README.md").unlink(missing_ok=True)  # PEFT's own card, which names the directory of the base model
    apply_umask(path)
    return path


@dataclass(frozen=True, slots=True)
class Exported:
    """What was written."""

    path: Path
    problem: str | None
    """Why what others load from it is not what was trained, for the user; None as it should be."""


def export(
    policy: Policy,
    tokenizer: HFTokenizer,
    run_dir: Path,
    base: str,
    stop_ids: tuple[int, ...] = (),
    export_dtype: ExportDType | None = None,
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
    dtype = written_dtype(export_dtype, "float32", resolve_model(base).base)
    if whole is not None:
        whole = in_formats_of(resolve_model(base).base, whole, dtype)
    path = write_weights(policy, run_dir, whole)
    if whole is not None:
        say_dtype(path, dtype)
        copy_processor_files(base, path)
    tokenizer.inner.save_pretrained(path)
    problem = export_problem(policy, path, whole)
    said = None if problem is None else BAD_EXPORT.format(path=path, problem=problem.rstrip("."))
    card = model_card(base, ends_note(tokenizer, stop_ids), is_adapter=policy.causal_lm.adapter is not None)
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
    copy_processor_files(base, folder)
    apply_umask(folder)
    return str(folder)
