"""One run of one family: checked, run, and compared with the reference."""

import re
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest.mock import patch

from conftest import read_jsonl
from transformers import PreTrainedModel, PreTrainedTokenizerFast

import distillkit
from distillkit import Registry
from distillkit.errors import InputError, error_text
from distillkit.events import Notice
from distillkit.loop import execute
from distillkit.preflight.prepared_run import prepare_run
from distillkit.run_directory.result import RunResult
from distillkit.testing import ListSink
from families.adapter_tensors import adapter_faults, model_faults
from families.bounds import EXACT
from families.measurement import Trial
from families.reference import Distance, distance, load_reference, with_adapter
from families.trial_config import SYNC_INTERVAL, Mode, trial_config

TRAINED_BYTES = 16
"""Of a number that is trained in float32: itself, its gradient and two moments."""


@dataclass(frozen=True, slots=True)
class Subjects:
    """A student and a teacher of one family, and their references."""

    folder: Path
    """What is written goes here; `write_rows` was here."""
    student: Path
    teacher: Path
    base: PreTrainedModel
    taught: PreTrainedModel
    tokenizer: PreTrainedTokenizerFast

    @classmethod
    def load(cls, folder: Path, student: str, teacher: str) -> "Subjects":
        """From the directories of their models."""
        base, taught = (load_reference(Path(each)) for each in (student, teacher))
        tokenizer = PreTrainedTokenizerFast.from_pretrained(student)
        return cls(folder, Path(student), Path(teacher), base, taught, tokenizer)


class Watch:
    """Seconds by phase."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        start = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - start


def try_out(subjects: Subjects, mode: Mode) -> Trial:
    """Check and run it, and compare what came with the reference."""
    watch, sink = Watch(), ListSink()
    config = trial_config(subjects.folder, str(subjects.student), str(subjects.teacher), mode, sink)
    said: list[Notice] = []
    try:
        with watch.phase("check"):
            prepared = prepare_run(config, Registry.discover(), said.append)
        if prepared.missing:
            return Trial(refused=_sentence("; ".join(prepared.missing), subjects), seconds=watch.seconds)
    except InputError as error:
        return Trial(refused=_sentence(str(error), subjects), seconds=watch.seconds)
    except Exception as error:  # noqa: BLE001 - whatever it is, it is what the table says of this family
        return Trial(failed=_last_line("check", error, subjects), seconds=watch.seconds)
    try:
        # Checked once: it is a quarter of the time, and the run would find the same.
        with watch.phase("run"), patch.object(execute, "prepare_run", return_value=prepared):
            result = distillkit.run(config)
        with watch.phase("reference"):
            distances = _distances(result, subjects, mode)
            faults = tuple(_faults(result, prepared.memory.reports, subjects, mode))
    except InputError as error:  # proven when it is opened, and not before
        return Trial(refused=f"when it is opened: {_sentence(str(error), subjects)}", seconds=watch.seconds)
    except Exception as error:  # noqa: BLE001 - as above
        return Trial(failed=_last_line("run", error, subjects), seconds=watch.seconds)
    told = [*said, *(event for event in sink.events if isinstance(event, Notice))]
    notices = tuple(_sentence(notice.message, subjects) for notice in told)
    return Trial(None, None, _path(result), distances, faults, notices, watch.seconds)


def _distances(result: RunResult, subjects: Subjects, mode: Mode) -> dict[str, Distance]:
    """`student`, `teacher`, `export` and `mismatch` to the largest distance of any token."""
    samples = read_jsonl(result.run_dir / "samples.jsonl")
    (teacher,) = samples[0]["teacher_logprobs"]
    first = [sample for sample in samples if sample["policy_version"] == 0]
    last = [s for s in samples if s["split"] == "heldout" and s["policy_version"] == result.steps]
    tokenizer = subjects.tokenizer
    found = {
        "student": distance(subjects.base, tokenizer, first, None),
        "teacher": distance(subjects.taught, tokenizer, samples, teacher),
    }
    two_roundings = max(EXACT / 2, found["student"].rounding)  # the sampler's and the trainer's
    found["mismatch"] = Distance(_mismatch(result, mode), two_roundings)
    if mode == "lora":
        with with_adapter(subjects.base, result.adapter_path) as model:
            return {**found, "export": distance(model, tokenizer, last, None)}
    return {**found, "export": distance(load_reference(result.adapter_path), tokenizer, last, None)}


def _mismatch(result: RunResult, mode: Mode) -> float:
    """Between sampler and trainer, of the worst token of the steps that trained what their own policy had sampled."""
    fresh = [row for row in result.metrics if int(str(row["step"])) % SYNC_INTERVAL[mode] == 1 % SYNC_INTERVAL[mode]]
    return max(float(str(row["rollout/logprob_mismatch_max"])) for row in fresh if row["step"])


def _faults(result: RunResult, reports: Mapping[str, Any], subjects: Subjects, mode: Mode) -> Iterator[str]:
    """What is wrong besides logprobs."""
    if mode == "lora":
        trained = _facts(result)["trained_parameters"]
        said = sum(use.size_bytes for use in reports["student"].uses if "the LoRA" in use.what) // TRAINED_BYTES
        if trained != said:
            yield f"check says that {said:,} numbers are trained, and {trained:,} are"
        yield from adapter_faults(result.adapter_path, subjects.base)
    else:
        yield from model_faults(result.adapter_path, subjects.student)


def _facts(result: RunResult) -> dict[str, Any]:
    provenance: Any = result.summary["provenance"]
    facts: dict[str, Any] = provenance["plugins"]["student"]
    return facts


def _path(result: RunResult) -> str:
    facts = _facts(result)
    return ", ".join(("plain" if facts["sampling"] == "transformers" else facts["sampling"], facts["sequences"]))


def _last_line(where: str, error: Exception, subjects: Subjects) -> str:
    return f"{where}: {_sentence(error_text(error), subjects)}"


def _sentence(message: str, subjects: Subjects) -> str:
    """On one line, without folders of this machine; what is said of student and teacher alike is said once."""
    for folder, word in ((subjects.student, "MODEL"), (subjects.teacher, "MODEL"), (subjects.folder, "FOLDER")):
        message = message.replace(str(folder), word)
    lines = (re.sub(r"^(student|teacher '[^']*'): ", "", line.strip()) for line in message.splitlines())
    return " ".join(dict.fromkeys(line for line in lines if line))
