"""Reads the completions of runs, and what they add up to; a page that is made again reads only what has come since."""

from collections.abc import Sequence
from pathlib import Path

from distillkit.report.inspector.pushes import Pushes
from distillkit.report.inspector.recorded import Recorded, SamplesFile


class SamplesReader:
    """The `samples.jsonl` of some runs. Not for several threads at once."""

    def __init__(self) -> None:
        """Nothing is read."""
        self._files: list[SamplesFile] = []
        self.pushes = Pushes()
        """Of all that was read."""

    def read(self, files: Sequence[Path]) -> Recorded:
        """All completions of these files, one a run; a file may be missing. Raises OSError."""
        known = [file.path for file in self._files]
        if known != list(files) or not all(file.is_continued() for file in self._files):
            self._files = [SamplesFile(run, path) for run, path in enumerate(files)]
            self.pushes = Pushes()
        for file in self._files:
            file.read_on(self.pushes.add)
        places = [place for file in self._files for place in file.places]
        return Recorded(places, sum(file.damaged + file.cut_off for file in self._files))
