"""A run's weights as a whole model: a LoRA merged into its base, with tokenizer, chat template and card; read back."""

from dataclasses import dataclass
from pathlib import Path

from transformers import AutoTokenizer

from distillkit.errors import RunFailedError
from distillkit_builtin.hf_tokenizer import HFTokenizer
from distillkit_builtin.local.export.export_check import model_problem
from distillkit_builtin.local.export.export_dtype import written_dtype
from distillkit_builtin.local.export.model_card import MERGED, ends_note, model_card
from distillkit_builtin.local.export.processor_files import copy_processor_files
from distillkit_builtin.local.model.load_weights import load_weights
from distillkit_builtin.local.option_types import ExportDType
from distillkit_builtin.model_source import ADAPTER_CONFIG, ModelSource, resolve_model


@dataclass(frozen=True, slots=True)
class WholeExport:
    """What is to be written."""

    exported: Path
    """`adapter/` or `model/` of a run."""
    base: str
    """`student.model`."""
    export_dtype: ExportDType | None
    tokenizer: HFTokenizer
    """The student's, for what the card says of the ends of completions."""
    stop_ids: tuple[int, ...]


def write_whole_model(export: WholeExport, folder: Path) -> None:
    """Write it into `folder`.

    Adapters are merged in float32, and must give there what they give beside their model; then the sum is rounded.

    Raises:
        InputError: if an adapter cannot be merged.
        RunFailedError: if what others load from the files is not what was written.
    """
    adapted = (export.exported / ADAPTER_CONFIG).is_file()
    base = resolve_model(export.base)
    source = ModelSource(base.base, (*base.adapters, export.exported)) if adapted else ModelSource(str(export.exported))
    dtype = written_dtype(export.export_dtype, "base" if adapted else "float32", base.base)
    model = load_weights(source, dtype)
    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(export.exported, trust_remote_code=False).save_pretrained(folder)
    copy_processor_files(export.base, folder)
    problem = model_problem(folder, model.state_dict())
    if problem is not None:
        raise RunFailedError(f"what others load from {folder} is not what was trained: {problem}; please report it")
    notes = MERGED.format(dtype=str(dtype).removeprefix("torch.")) if adapted else ""
    card = model_card(export.base, notes + ends_note(export.tokenizer, export.stop_ids), is_adapter=False)
    (folder / "README.md").write_text(card, encoding="utf-8")
