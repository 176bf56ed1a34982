"""What is lost when a run is killed, as no run can save itself then."""

from distillkit.config.sections import TrainConfig
from distillkit.data.counted import counted


def kill_cost(train: TrainConfig) -> str:
    """The most that a kill costs, in steps or minutes, and which options say so."""
    steps, minutes = train.save_every, train.save_every_minutes
    bounds = []
    if steps:
        bounds.append(f"{counted(steps, 'step')} (train.save_every)")
    if minutes:
        step = "the step in hand" if train.weight_sync_interval == 1 else f"{train.weight_sync_interval} steps"
        bounds.append(f"{minutes:g} minutes and {step} (train.save_every_minutes)")
    if not bounds:
        return "all of it: nothing is saved before the last step (train.save_every, train.save_every_minutes)"
    return f"at most {', or '.join(bounds)}{', whichever is less' if len(bounds) == 2 else ''}"
