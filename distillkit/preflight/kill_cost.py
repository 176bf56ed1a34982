"""What is lost when a run is killed, as no run can save itself then."""

from distillkit.config.train_config import TrainConfig
from distillkit.data.counted import counted


def kill_cost(train: TrainConfig, steps_in_all: int) -> str:
    """The most that a kill costs a run of so many steps, in steps or minutes, and which options say so."""
    steps, minutes = train.save_every, train.save_every_minutes
    bounds = []
    if steps:
        shorter = f", which is {steps}: the run is shorter" if steps_in_all < steps else ""
        bounds.append(f"{counted(min(steps, steps_in_all), 'step')} (train.save_every{shorter})")
    if minutes:
        step = "the step in hand" if train.weight_sync_interval == 1 else f"{train.weight_sync_interval} steps"
        bounds.append(f"{minutes:g} minutes and {step} (train.save_every_minutes)")
    if not bounds:
        return "all of it: nothing is saved before the last step (train.save_every, train.save_every_minutes)"
    return f"at most {', or '.join(bounds)}{', whichever is less' if len(bounds) == 2 else ''}"
