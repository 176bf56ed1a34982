"""One number a step, as CSV."""

from pathlib import Path
from typing import ClassVar

from pydantic import Field, PrivateAttr

from distillkit import Event, RunContext, Sink, StepFinished


class CsvSink(Sink):
    """Writes one metric of each step into a CSV file in the run's directory."""

    name: ClassVar[str] = "weather_csv"

    metric: str = Field("train/reverse_kl", description="The metric to write.")

    _path: Path | None = PrivateAttr(None)

    async def open(self, run: RunContext) -> None:
        """Start the file; without a run directory there is nothing to write."""
        if run.run_dir is not None:
            self._path = run.run_dir / "metric.csv"
            self._path.write_text(f"step,{self.metric}\n", encoding="utf-8")

    def emit(self, event: Event) -> None:
        """Add a line a step."""
        if self._path is not None and isinstance(event, StepFinished):
            with self._path.open("a", encoding="utf-8") as file:
                file.write(f"{event.step},{event.metrics[self.metric]}\n")
