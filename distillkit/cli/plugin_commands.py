"""The commands `distillkit plugins ...` and `distillkit config ...`: what there is to choose from."""

from pathlib import Path
from typing import Annotated

import typer

from distillkit.cli import plugin_pages, proving, schema
from distillkit.cli.arguments import Quiet, ScriptOptions, Verbose
from distillkit.cli.plugin_example import example_of
from distillkit.cli.reporting import OUT, reporting
from distillkit.registry import Registry

plugins_app = typer.Typer(help="The plugins that a config can choose by name.", no_args_is_help=True)
config_app = typer.Typer(help="About config files.", no_args_is_help=True)


def _flags(verbose: Verbose = False, quiet: Quiet = False) -> None:
    """Options before a command of a group."""


plugins_app.callback()(_flags)
config_app.callback()(_flags)


@plugins_app.command("list")
def plugins_list(
    as_json: Annotated[bool, typer.Option("--json", help="For programs.")] = False,
    plugin: ScriptOptions = None,
    verbose: Verbose = False,
    quiet: Quiet = False,
) -> None:
    """All plugins by role, and the entry points that could not be loaded."""
    with reporting(verbose=verbose):
        registry = _registry(plugin or [])
        OUT.print(plugin_pages.as_json(registry)) if as_json else plugin_pages.show_list(registry, OUT)


@plugins_app.command("show")
def plugins_show(
    role: Annotated[str, typer.Argument(help="The role; may be left out where one role alone has the name.")],
    name: Annotated[str | None, typer.Argument(help="The plugin.", show_default=False)] = None,
    plugin: ScriptOptions = None,
    verbose: Verbose = False,
    quiet: Quiet = False,
) -> None:
    """One plugin's options, each with its type, default and meaning, and lines to copy into a config."""
    with reporting(verbose=verbose):
        registry = _registry(plugin or [])
        if name is None:
            role, name = registry.role_of(role), role
        plugin_pages.show_one(registry, role, name, OUT)
        example = example_of(registry.find(role, name), registry)
        if example is not None:
            OUT.print(f"\nIn a config:\n\n{example}")


@plugins_app.command("prove")
def plugins_prove(
    name: Annotated[str | None, typer.Argument(help="The loss.", show_default=False)] = None,
    options: Annotated[
        list[str] | None, typer.Argument(metavar="[KEY=VALUE...]", help="Its options.", show_default=False)
    ] = None,
    every: Annotated[bool, typer.Option("--all", help="Every loss, at its default options.")] = False,
    plugin: ScriptOptions = None,
    verbose: Verbose = False,
    quiet: Quiet = False,
) -> None:
    """Whether a loss does what it says that it minimises, by enumeration; exit code 1 where a check fails.

    distillkit plugins prove importance_sampling scale=0.5
    """
    with reporting(verbose=verbose):
        registry = _registry(plugin or [])
        passed = proving.prove_all(registry, name, OUT) if every else proving.prove(registry, name, options or [], OUT)
    if not passed:
        raise typer.Exit(1)


@config_app.command("schema")
def config_schema(plugin: ScriptOptions = None, verbose: Verbose = False, quiet: Quiet = False) -> None:
    """The JSON schema of config files, for editors to complete and check them.

    distillkit config schema > distillkit.schema.json
    and as the first line of config.yaml: # yaml-language-server: $schema=distillkit.schema.json
    """
    with reporting(verbose=verbose):
        OUT.print(schema.as_json(_registry(plugin or [])))


def _registry(scripts: list[str]) -> Registry:
    registry = Registry.discover()
    for script in scripts:
        registry.add_script(Path(script))
    return registry
