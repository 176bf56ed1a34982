"""In which form a run's student publishes its weights, for whoever has to know it before anything is loaded."""

from distillkit.context import RunContext


def declare_whole_weights(run: RunContext) -> None:
    """Say, in a student's `declare`, that it writes all weights for samplers, which replace a server's own."""
    _declared(run).append(run.user)


def are_whole(run: RunContext) -> bool:
    """Whether a student said so."""
    return bool(_declared(run))


def _declared(run: RunContext) -> list[str]:
    return run.share("students that publish all weights", list[str])
