"""Sink `wandb`: metrics, config and summary of a run at Weights & Biases, or in a folder that can be uploaded later."""

import netrc
import os
import secrets
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal
from urllib.parse import urlsplit

from pydantic import Field, JsonValue, PrivateAttr

from distillkit import CheckReport, InputError, RunContext
from distillkit_builtin.sinks.tracker import COLUMNS, Ending, KeptRun, Sample, UploadsWeights, missing_package

if TYPE_CHECKING:
    from wandb import Run

KEY = "WANDB_API_KEY"
DEBUGGING = ("WANDB_DEBUG", "WANDB_CORE_DEBUG")
ID_FILE = "wandb.json"
"""In the run's directory: the id at Weights & Biases, which a resumed run goes on with."""
FINISH_SECONDS = 300.0
"""How long the end of a run waits for uploads; what is not uploaded then is on disk still."""
EXIT_CODES: Mapping[str, int] = {"completed": 0, "interrupted": 130}


class WandbSink(UploadsWeights):
    """Metrics, the config, some completions and the summary at Weights & Biases.

    Without a key it writes a folder that `wandb sync` uploads later; each `--resume` writes one more, of the same id.
    Online, a step that was logged before and is trained again after `--resume` is ignored.
    """

    name: ClassVar[str] = "wandb"
    libraries: ClassVar[frozenset[str]] = frozenset({"wandb"})
    writes: ClassVar[frozenset[str]] = frozenset({"wandb", ID_FILE})
    closing_seconds: ClassVar[float] = FINISH_SECONDS + 30.0

    project: str = Field("distillkit", min_length=1, description="The project.")
    entity: str | None = Field(None, description="The user or team; null: the key's own.")
    run_name: str | None = Field(None, description="How the run is called there; null: the run's name.")
    group: str | None = Field(None, description="Runs of one group are shown together.")
    tags: tuple[str, ...] = Field((), description="Tags of the run.")
    mode: Literal["auto", "online", "offline"] = Field(
        "auto", description="auto: what WANDB_MODE says, else online with a key, else offline."
    )
    dir: str | None = Field(None, description="Where its files are kept, below `wandb/`; null: the run's directory.")

    _run: "Run | None" = PrivateAttr(None)
    _exit_code: int = PrivateAttr(1)

    def check(self, run: RunContext) -> CheckReport:
        """Report the project and what is not installed. Raises InputError for `mode: online` without a key."""
        if self.mode == "online" and not has_key():
            raise InputError(f"sink 'wandb': mode is online, but {KEY} is not set; set it, or mode: offline")
        return CheckReport((self._where(),), missing=missing_package(self.name, "wandb"))

    async def open(self, run: RunContext) -> None:
        """Begin the run there, or go on with the one that this run began; a notice says where."""
        self._run = self._begin(run)
        run.notify(self._notice(self._run))

    @property
    def is_open(self) -> bool:
        """Whether the run has begun there."""
        return self._run is not None

    def begin(self, config: dict[str, JsonValue], first_step: int) -> None:
        """Keep the config."""
        if self._run is not None:
            self._run.config.update(config, allow_val_change=True)

    def log(self, metrics: dict[str, float], step: int) -> None:
        """Log them; wandb's own process writes and uploads."""
        if self._run is not None:
            self._run.log(metrics, step=step)

    def show(self, samples: Sequence[Sample], step: int) -> None:
        """Log a table."""
        import wandb

        if self._run is not None:
            table = wandb.Table(columns=list(COLUMNS), data=[list(sample.cells) for sample in samples])
            self._run.log({"samples": table}, step=step)

    def end(self, ending: Ending) -> None:
        """Keep the summary, and the weights where they are wanted."""
        run = self._run
        if run is None:
            return
        self._exit_code = EXIT_CODES.get(ending.status, 1)
        run.summary.update(ending.summary)
        if self.upload_weights and ending.status == "completed" and ending.weights is not None:
            run.log_artifact(str(ending.weights), name=f"weights-{run.id}", type="model")

    async def close(self) -> None:
        """End the run there with the exit code that distillkit has."""
        run, self._run = self._run, None
        if run is not None:
            run.finish(exit_code=self._exit_code)

    def _begin(self, run: RunContext) -> "Run":
        with no_debug_logs():
            return self._init(run)

    def _init(self, run: RunContext) -> "Run":
        import wandb

        mode = resolve_mode(self.mode)
        kept = KeptRun.of(run, ID_FILE)
        identifier = kept.read().get("id") or secrets.token_hex(4)
        kept.write(id=identifier)
        return wandb.init(
            project=self.project,
            entity=self.entity,
            id=identifier,
            name=self.run_name or run.name,
            group=self.group,
            tags=self.tags,
            mode=mode,  # type: ignore[arg-type]  # wandb says what is wrong with WANDB_MODE
            dir=self.dir or run.run_dir,
            resume="allow" if mode == "online" else None,
            reinit="create_new",  # a notebook may have a run of its own
            settings=wandb.Settings(
                console="off",  # the terminal is the console sink's
                silent=True,
                finish_timeout=FINISH_SECONDS,
            ),
        )

    def _where(self) -> str:
        owner = f"{self.entity}/{self.project}" if self.entity else self.project
        return f"project {owner}, {resolve_mode(self.mode)}"

    def _notice(self, run: "Run") -> str:
        if resolve_mode(self.mode) == "online":
            return f"wandb: {run.url}"
        why = f", since {KEY} is not set" if self.mode == "auto" and not os.environ.get("WANDB_MODE") else ""
        return f"wandb: {self._where()}{why}; upload it with: wandb sync {Path(run.dir).parent}"


def resolve_mode(option: str) -> str:
    """`online`, `offline` or whatever WANDB_MODE says, for an `option` that may be `auto`."""
    if option != "auto":
        return option
    return os.environ.get("WANDB_MODE") or ("online" if has_key() else "offline")


def has_key() -> bool:
    """Whether there is a key: in the environment, or where `wandb login` keeps it."""
    if os.environ.get(KEY):
        return True
    host = urlsplit(os.environ.get("WANDB_BASE_URL") or "https://api.wandb.ai").hostname or ""
    try:
        return netrc.netrc(os.environ.get("NETRC")).authenticators(host) is not None
    except (OSError, netrc.NetrcParseError):
        return False


@contextmanager
def no_debug_logs() -> Iterator[None]:
    """While this lasts wandb's process starts without debug logs: they hold all settings, the key among them."""
    asked_for = {name: os.environ.pop(name) for name in DEBUGGING if name in os.environ}
    try:
        yield
    finally:
        os.environ.update(asked_for)
