"""What came of one family, and what it is called: exact, refused, wrong or failed."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from families.bounds import EXACT, bound
from families.reference import Distance
from families.trial_config import Mode

Verdict = Literal["exact", "refused", "wrong", "failed"]


@dataclass(frozen=True, slots=True)
class Trial:
    """One run, compared with the reference."""

    refused: str | None = None
    """What `check` said; None: it was content."""
    failed: str | None = None
    """The last line of the traceback."""
    path: str = ""
    """How it was computed, as the run says."""
    distances: Mapping[str, Distance] = field(default_factory=dict)
    """`student`, `teacher`, `mismatch`, `export`."""
    faults: tuple[str, ...] = ()
    """What else is wrong."""
    notices: tuple[str, ...] = ()
    """What the run told its user."""
    seconds: Mapping[str, float] = field(default_factory=dict)
    """By phase."""

    @property
    def off(self) -> dict[str, float]:
        """The distances over their bounds, in nats; one that is not a number is over each."""
        found = self.distances.items()
        return {name: each.nats for name, each in found if not each.nats <= bound(each.rounding)}

    @property
    def rounding(self) -> float | None:
        """The largest distance that is over `EXACT` and within its bound."""
        within = [each.nats for name, each in self.distances.items() if name not in self.off and each.nats > EXACT]
        return max(within, default=None)

    @property
    def verdict(self) -> Verdict:
        """Of sampling, scoring and training; a failure to export is one of the run."""
        if self.refused is not None:
            return "refused"
        if self.failed is not None:
            return "failed"
        return "wrong" if self.faults or self.off.keys() - {"export"} else "exact"

    @property
    def export_verdict(self) -> Verdict | None:
        """Of what was written; None where nothing was."""
        if self.refused is not None or self.failed is not None:
            return None
        return "wrong" if "export" in self.off else "exact"

    @property
    def remark(self) -> str | None:
        """Why it is not exact, in one sentence; None where it is."""
        if self.refused is not None or self.failed is not None:
            return self.refused or self.failed
        parts = [f"{name} is off by {distance:.2g} nats" for name, distance in self.off.items()]
        return "; ".join((*parts, *self.faults)) or None


@dataclass(frozen=True, slots=True)
class Measurement:
    """Both runs of one family."""

    name: str
    kind: str
    trials: Mapping[Mode, Trial]
    before: str | None = None
    """What was off with other weights, which rounding may do."""

    @property
    def path(self) -> str:
        """How it was computed; both where the two runs differ."""
        return " / ".join(dict.fromkeys(trial.path for trial in self.trials.values() if trial.path)) or "-"

    @property
    def export(self) -> str:
        """The worse of the two."""
        found = {trial.export_verdict for trial in self.trials.values()} - {None}
        return "wrong" if "wrong" in found else "exact" if found else "-"

    @property
    def remarks(self) -> str:
        """Sentences on what is not exact, each once, and on rounding that is larger than usual."""
        modes = {mode: trial.remark for mode, trial in self.trials.items() if trial.remark}
        same = len(set(modes.values())) == 1 and len(modes) == len(self.trials)
        said = [next(iter(modes.values()))] if same else [f"{mode}: {remark}" for mode, remark in modes.items()]
        rounding = max((trial.rounding or 0.0 for trial in self.trials.values()), default=0.0)
        if rounding:
            said.append("float32 rounds by more than 3e-5 nats here")
        if self.before is not None:
            said.append(f"with other weights {self.before}")
        return ". ".join(said)

    @property
    def only_numbers_are_off(self) -> bool:
        """Whether nothing is wrong but distances."""
        trials = self.trials.values()
        return self.is_wrong and not any(trial.failed or trial.faults for trial in trials)

    @property
    def is_wrong(self) -> bool:
        """Whether any number, or any run, is not as it should be. What is refused is not wrong."""
        return self.export == "wrong" or any(trial.verdict in ("wrong", "failed") for trial in self.trials.values())

    @property
    def seconds(self) -> float:
        """All of it."""
        return math.fsum(sum(trial.seconds.values()) for trial in self.trials.values())
