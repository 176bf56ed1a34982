"""The run's own files. They are the engine's, not a sink's: failing to write them ends the run."""

import asyncio
import json
import logging
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import yaml
from pydantic import JsonValue

from distillkit.config.run_config import RunConfig
from distillkit.files.atomic import write_json
from distillkit.files.jsonl import JsonLines, explain_write_errors, json_lines
from distillkit.files.redaction import RedactingFormatter
from distillkit.metrics import finite
from distillkit.registry import Registry
from distillkit.run_directory.directory import HEADER, MARKER, PATHS_START_AT

log = logging.getLogger("distillkit")


class RunLog(logging.FileHandler):
    """`run.log`. Where it cannot be written, nor can the run's data, and that ends the run with a word of its own."""

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - logging's name
        """Print no traceback in the middle of the run."""

    def close(self) -> None:
        """Close the file, also where its last lines do not fit on the disk: that must not hide why the run ends."""
        with suppress(OSError):
            super().close()


@dataclass(slots=True)
class RunFiles:
    """`config.yaml`, `metrics.jsonl`, `samples.jsonl`, `summary.json` and `run.log` of one run."""

    run_dir: Path
    _metrics: JsonLines
    _samples: JsonLines

    @classmethod
    @contextmanager
    def open(cls, run_dir: Path) -> Iterator["RunFiles"]:
        """Append to the files in `run_dir`, and send distillkit's log there, while the run lasts."""
        with explain_write_errors(run_dir / "run.log"):
            handler = RunLog(run_dir / "run.log", encoding="utf-8")
        handler.setFormatter(RedactingFormatter("%(asctime)s %(levelname)s %(message)s"))
        level, propagate = log.level, log.propagate  # they belong to whoever imported distillkit
        log.addHandler(handler)
        if log.getEffectiveLevel() > logging.INFO:
            log.setLevel(logging.INFO)
        log.propagate = False
        try:
            with JsonLines(run_dir / "metrics.jsonl") as metrics, JsonLines(run_dir / "samples.jsonl") as samples:
                yield cls(run_dir, metrics, samples)
        finally:
            log.removeHandler(handler)
            handler.close()
            log.setLevel(level)
            log.propagate = propagate

    def write_config(self, config: RunConfig, registry: Registry) -> None:
        """The resolved config, complete; what a file cannot choose by name is marked."""
        lines = [
            HEADER + ": `distillkit run config.yaml name=again` runs it once more.",
            f"{PATHS_START_AT}{Path.cwd()}",
        ]
        for key in config.unreproducible(registry):
            lines.append(f"# NOT RE-RUNNABLE: {key} was passed in Python; no installed package has it, nor a script.")
        text = yaml.safe_dump(config.dump(), sort_keys=False, allow_unicode=True, width=120)
        with explain_write_errors(self.run_dir / MARKER):
            (self.run_dir / MARKER).write_text("\n".join(lines) + "\n" + text, encoding="utf-8")

    def lengths(self) -> dict[str, int]:
        """How long, in bytes, the growing files are."""
        return {file.path.name: file.length() for file in (self._metrics, self._samples)}

    def flush(self) -> None:
        """Return once all of the growing files is on the disk."""
        for file in (self._metrics, self._samples):
            file.flush()

    def rewind(self, lengths: Mapping[str, int]) -> None:
        """Forget what was written since they had these lengths: a resumed run writes it again."""
        for file in (self._metrics, self._samples):
            file.cut(lengths[file.path.name])

    def take_back_metrics(self, step: int) -> dict[str, float]:
        """Remove and return the line of `step`, the last one, so that it can be written again with more in it."""
        last = next((row for row in read_metrics(self.run_dir)[::-1] if row["step"] == step), {})
        self._metrics.cut(end_of_step(self._metrics.path, step - 1))
        return {name: float(value) for name, value in last.items() if name != "step" and isinstance(value, float | int)}

    def write_metrics(self, step: int, metrics: Mapping[str, float | None]) -> dict[str, JsonValue]:
        """One line a step; returns it. What is not finite, and so not known, is null."""
        known = {name: None if value is None else finite(value) for name, value in metrics.items()}
        row: dict[str, JsonValue] = {"step": step, **known}
        self._metrics.append([row])
        return row

    async def write_samples(self, records: Callable[[], Iterable[Mapping[str, JsonValue]]]) -> None:
        """Append completions. `records` is called in a thread: those of long completions take tens of milliseconds."""
        self._samples.write(await asyncio.to_thread(lambda: json_lines(records(), ascii_only=False)))

    def write_summary(self, summary: Mapping[str, JsonValue]) -> None:
        """`summary.json`, whole or not at all."""
        with explain_write_errors(self.run_dir / "summary.json"):
            write_json(self.run_dir / "summary.json", summary, indent=2)


def read_metrics(run_dir: Path) -> list[dict[str, JsonValue]]:
    """The rows of `metrics.jsonl`."""
    with (run_dir / "metrics.jsonl").open(encoding="utf-8") as file:
        return [json.loads(line) for line in file]


def end_of_step(path: Path, step: int) -> int:
    """Where, in bytes, a JSONL file's lines of steps up to `step` end; a line that was cut off does not count."""
    end = 0
    with path.open("rb") as file:
        for line in file:
            try:
                if json.loads(line)["step"] > step:
                    break
            except json.JSONDecodeError:
                break
            end += len(line)
    return end
