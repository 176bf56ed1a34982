"""How a run starts in its directory: empty, over an older run, or from a checkpoint."""

from dataclasses import dataclass

from distillkit.errors import InputError


@dataclass(frozen=True, slots=True)
class RunStart:
    """The options `--resume`, `--overwrite` and so on of one start; by default the directory must hold no run."""

    resume: bool = False
    """Go on from the newest checkpoint."""
    from_step: int | None = None
    """With `resume`: from the checkpoint of this step; what came after it is forgotten."""
    overwrite: bool = False
    """Replace the run that is there."""
    force: bool = False
    """With `resume`: go on although data, settings, tokenizers or models are not those of the checkpoint."""

    def __post_init__(self) -> None:
        """Raise InputError for choices that do not go together."""
        if self.resume and self.overwrite:
            raise InputError("resume and overwrite exclude each other: go on with the run that is there, or replace it")
        for name, given in (("force", self.force), ("from_step", self.from_step is not None)):
            if given and not self.resume:
                option = f"--{name.replace('_', '-')}"
                raise InputError(f"{option} goes with --resume (in Python: {name} with resume=True)")
