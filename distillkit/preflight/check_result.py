"""What `distillkit.check` gives: everything that is known of a run before it, as values."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from distillkit.config.run_config import RunConfig
from distillkit.data.counted import counted
from distillkit.events import Notice
from distillkit.preflight.prepared_run import PreparedRun
from distillkit.probe.report import ProbeReport
from distillkit.run_plan import Plan
from distillkit.types import Prompts


@dataclass(frozen=True, slots=True, repr=False)
class CheckResult:
    """A run that is valid, and what it will do and take."""

    config: RunConfig
    """The config, resolved."""
    run_dir: Path
    """Where it will write."""
    holds_run: bool
    """Whether a run is there already, which `resume` goes on with and `overwrite` replaces."""
    plan: Plan
    """Upper bounds of its rows, steps and tokens."""
    rows: int
    """Rows of the data, each of which is trained in every epoch."""
    routes: Mapping[str, int]
    """Teacher name to the rows that it scores."""
    prompts: Mapping[str, Mapping[str, str]]
    """Of the first row of each route, by the route's label: what `student` and each teacher by its name will read."""
    memory_bytes: Mapping[str, int]
    """Device to what the run is reckoned to take of it at its peak."""
    plugin_notes: tuple[str, ...]
    """What will be loaded, created or reused, a line each."""
    notes: tuple[str, ...]
    """What a user should know of data and settings, a sentence each; the warnings are among them."""
    warnings: tuple[str, ...]
    """Those of the notes that say what is likely wrong."""
    missing: tuple[str, ...]
    """What has to be installed before the run, a line each with the pip command."""
    probe: ProbeReport | None
    """What a probe measured and what that means; None where none was asked for, or something is missing."""

    @property
    def ok(self) -> bool:
        """Whether the run can start as it is, and no probe refuses it."""
        return not self.missing and (self.probe is None or not self.probe.refused)

    def __repr__(self) -> str:
        """One line for a notebook or a log; the fields hold the rest."""
        rows = ", ".join(f"{teacher} {number}" for teacher, number in self.routes.items())
        refused = self.probe is not None and self.probe.refused
        wrong = "refused by the probe" if refused else f"{counted(len(self.missing), 'package')} missing"
        parts = [
            "ok" if self.ok else wrong,
            f"{counted(self.rows, 'row')} ({rows})",
            counted(self.plan.steps, "step"),
            counted(len(self.notes) - len(self.warnings), "note"),
            counted(len(self.warnings), "warning"),
        ]
        return f"<CheckResult {self.config.name}: {', '.join(parts)}>"

    @classmethod
    def of(
        cls,
        prepared: PreparedRun,
        run_dir: Path,
        *,
        holds_run: bool,
        notices: tuple[Notice, ...],
        probe: ProbeReport | None = None,
    ) -> "CheckResult":
        """What is known of a prepared run; `notices` is what plugins said meanwhile, `probe` what it measured."""
        reports, said = prepared.reports.values(), (*notices, *prepared.notices)
        pipeline = prepared.pipeline
        return cls(
            prepared.config,
            run_dir,
            holds_run,
            prepared.plan,
            len(prepared.dataset),
            {teacher.name: pipeline.rows_of[teacher.name] for teacher in pipeline.routed_to},
            {label: _shown(prepared, prompts) for label, prompts in first_of_each_route(prepared).items()},
            {fit.memory.device: fit.peak for fit in prepared.memory.fits},
            tuple(note for report in reports for note in report.notes),
            tuple(notice.message for notice in said),
            tuple(notice.message for notice in said if notice.kind == "warning"),
            prepared.missing,
            probe,
        )


def first_of_each_route(prepared: PreparedRun) -> dict[str, Prompts]:
    """The first row of each route."""
    first: dict[str, Prompts] = {}
    wanted = {teacher.name for teacher in prepared.pipeline.routed_to if prepared.pipeline.rows_of[teacher.name]}
    for row in prepared.dataset.rows():
        (prompts,) = prepared.render([row])
        first.setdefault(prompts.route.label, prompts)
        if wanted <= {name for prompts in first.values() for name in prompts.route.teachers}:
            break
    return first


def _shown(prepared: PreparedRun, prompts: Prompts) -> dict[str, str]:
    """What each side reads, special tokens visible."""
    sides = prepared.renderer.teachers
    texts = {"student": prepared.renderer.student.tokenizer.show(prompts.student.tolist())}
    return texts | {name: sides[name].tokenizer.show(ids.tolist()) for name, ids in prompts.teachers.items()}
