"""Going back: from a student that collapses to the newest checkpoint from before that.

Only what training changed goes back: the weights, the optimizer, and the state of the plugins that learn. Rows, steps
and policy versions go on, so that what comes next is not what led there: with the weights of step 40 and the rows of
step 61 on. Each row is trained once, each step has one line in `metrics.jsonl`, and the ledger adds up. Step 60's line
says that it went back to 40, and its checkpoint, written at once, holds the weights of 40: a resume needs to know
nothing else.
"""

import asyncio
from collections.abc import Mapping, Sequence
from pathlib import Path

from distillkit.config.run_config import RunConfig
from distillkit.loop.guards import Guards, Undone
from distillkit.roles.loss import Loss
from distillkit.roles.plugin import Plugin
from distillkit.roles.sampler import Sampler
from distillkit.roles.scorer import Scorer
from distillkit.roles.student import Student
from distillkit.run_directory.checkpoint import checkpoints, damage, step_of


def steps_back(config: RunConfig) -> int:
    """How many steps before an alarm a checkpoint has to be, to be older than all that drew the window's completions.

    Those of a step are drawn by the policy of the step before, or by an older one (off policy, between two syncs).
    """
    return config.guards.window + config.train.max_steps_off_policy + config.train.weight_sync_interval


async def way_back(run_dir: Path, guards: Guards, step: int, back: int, alarm: str) -> Path | str:
    """The checkpoint, of `back` steps ago or more, to which a run goes back at `step`; or the words of its end."""
    config, before = guards.config, len(guards.undone)
    if config.action != "rollback":
        return alarm
    if before >= config.max_rollbacks:
        return f"{alarm}; the run went back already as often as guards.max_rollbacks={config.max_rollbacks} allows"
    path = await newest_before(run_dir, step - back, guards)
    if path is None:
        return (
            f"{alarm}; no whole checkpoint of step {step - back} or before is there to go back to; with a "
            f"train.save_every well below guards.window={config.window} there is one"
        )
    return path


async def newest_before(run_dir: Path, step: int, guards: Guards) -> Path | None:
    """The newest whole checkpoint of `step` or before that is not of steps that were undone themselves.

    After a rollback it is at least that one's own, from which other rows lead elsewhere.
    """
    last = guards.undone[-1].at if guards.undone else 0
    for path in reversed(checkpoints(run_dir)):
        at = step_of(path)
        if at != last and (at > step or any(one.to < at < one.at for one in guards.undone)):
            continue
        problem = await asyncio.to_thread(damage, path)
        if problem is None:
            return path
        guards.warn(f"{path} is damaged: {problem}; to go back, the one before it is used")
    return None


def described(guards: Guards, path: Path) -> str:
    """The newest rollback, which was to the checkpoint `path`, for the user."""
    last, count = guards.undone[-1], len(guards.undone)
    return (
        f"went back to the weights of step {last.to} ({path}): what was learnt in steps {last.to + 1} to {last.at} is "
        f"undone, and training goes on with the rows that come next (rollback {count} of at most "
        f"{guards.config.max_rollbacks})"
    )


def undone_steps(rollbacks: Sequence[Undone]) -> int:
    """How many steps left nothing in the weights; a later rollback may reach back over an earlier one."""
    return len({step for one in rollbacks for step in range(one.to + 1, one.at + 1)})


def learning_plugins(plugins: Mapping[str, Plugin]) -> dict[str, Plugin]:
    """Those that go back. Sinks and evaluators have seen what they have seen; the others are pure."""
    return {key: plugin for key, plugin in plugins.items() if isinstance(plugin, Student | Sampler | Scorer | Loss)}
