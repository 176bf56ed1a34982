"""`distillkit plugins prove`: what the enumeration of a loss says, as tables."""

from collections.abc import Sequence

from rich.console import Console
from rich.table import Table

from distillkit.config.option_problems import PluginOptionsError
from distillkit.config.override import apply_override
from distillkit.config.parse import Tree
from distillkit.errors import ConfigError, InputError
from distillkit.registry import Registry
from distillkit.roles.loss import Loss
from distillkit.testing.proof_of_loss import prove_loss, unprovable
from distillkit.testing.proof_result import Proof


def prove(registry: Registry, name: str | None, options: Sequence[str], console: Console) -> bool:
    """Print each check of one loss; returns whether all passed. Raises InputError for a loss that cannot be proven."""
    if name is None:
        raise InputError(f"name a loss, or give --all; there are {', '.join(registry.names('loss'))}")
    loss = loss_of(registry, name, options)
    if why := unprovable(loss):
        raise InputError(f"loss {name!r} cannot be proven: {why}")
    proof = prove_loss(loss)
    console.print(f"loss {name}, with {'; '.join(proof.cases)}")
    console.print(f"{proof.sizes}\n" if proof.sizes else "")
    console.print(_checks(proof))
    console.print(f"\n{proof.verdict}")
    return proof.passed


def prove_all(registry: Registry, name: str | None, console: Console) -> bool:
    """Print a line for every loss at its default options; returns whether none failed."""
    if name is not None:
        raise InputError("give a name, or --all")
    table = Table("loss", "result", "why", box=None)
    passed = True
    for each in registry.names("loss"):
        result, why = _at_defaults(registry, each)
        table.add_row(each, result, why)
        passed = passed and result != "failed"
    console.print(table)
    return passed


def loss_of(registry: Registry, name: str, options: Sequence[str]) -> Loss:
    """The loss that a config would choose by `loss.name` and `loss.KEY=VALUE`. Raises ConfigError."""
    tree: Tree = {"loss": {"name": name}}
    for option in options:
        apply_override(tree, f"loss.{option}")
    try:
        loss = registry.build("loss", tree["loss"])
    except PluginOptionsError as error:
        raise ConfigError("\n".join(str(problem.below(("loss",))) for problem in error.problems)) from error
    if not isinstance(loss, Loss):
        raise AssertionError("the registry builds plugins of the role that it is asked for")
    return loss


def _at_defaults(registry: Registry, name: str) -> tuple[str, str]:
    try:
        loss = loss_of(registry, name, [])
    except ConfigError as error:  # an option without a default
        return "not looked at", str(error)
    if why := unprovable(loss):
        return "not looked at", why
    proof = prove_loss(loss)
    if proof.passed:
        return "passed" if proof.verdict == "proven" else "nothing claimed", proof.verdict
    return "failed", "; ".join(f"{check.name}: {check.sentence}" for check in proof.failures)


def _checks(proof: Proof) -> Table:
    table = Table("check", "result", "why", box=None)
    for check in proof.checks:
        table.add_row(check.name, check.result, check.sentence)
    return table
