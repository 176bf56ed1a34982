"""Do a run's plugins fit together? Found out from what they say of themselves, before anything is read."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pydantic import JsonValue

from distillkit.config.data_config import DataConfig, Paths
from distillkit.config.default_plugins import default_source
from distillkit.config.option_problems import PluginOptionsError
from distillkit.config.run_config import RunConfig
from distillkit.errors import ConfigError, InputError, suggest
from distillkit.ranks import Rank
from distillkit.registry import Registry
from distillkit.roles.attribution import attribute_to
from distillkit.roles.capabilities import meant_by
from distillkit.roles.dataset import Dataset
from distillkit.roles.evaluator import Evaluator
from distillkit.roles.loss import Loss, read_by
from distillkit.roles.plugin import Plugin
from distillkit.roles.sampler import Sampler, TokenScorer
from distillkit.roles.scorer import Scorer
from distillkit.roles.student import MeasuresRouteGradients, Student
from distillkit.roles.weighting import Weighting


@dataclass(frozen=True, slots=True)
class RunPlugins:
    """The plugins of a run, by the key under which the config chooses them."""

    by_key: Mapping[str, Plugin]
    dataset: Dataset
    eval_dataset: Dataset | None
    sampler: Sampler
    scorers: Mapping[str, Scorer]
    """Teacher name to the scorer of that teacher."""


def plugins_of(config: RunConfig, registry: Registry) -> RunPlugins:
    """All plugins of a config, in the order in which they are opened; `registry` has the dataset for a path."""
    require_references(config)
    student = config.student
    sampler = student.sampler if student.sampler is not None else student
    if not isinstance(sampler, Sampler):
        raise InputError(f"student {student.name!r} cannot sample by itself; choose student.sampler")
    plugins: dict[str, Plugin] = {f"sinks.{sink.name}": sink for sink in config.sinks}
    dataset, eval_dataset = _datasets(config.data, registry)
    plugins |= {"data.source": dataset, **({} if eval_dataset is None else {"data.eval_source": eval_dataset})}
    plugins |= {"router": config.router, "prompts": config.prompts, "loss": config.loss, "student": student}
    if student.sampler is not None:
        plugins["student.sampler"] = student.sampler
    for teacher in config.teachers:
        plugins[f"teachers.{teacher.teacher.name}.scorer"] = teacher.scorer
    plugins |= {f"train.weightings.{weighting.name}": weighting for weighting in config.train.weightings}
    plugins |= {f"evaluators.{evaluator.name}": evaluator for evaluator in config.evaluators}
    scorers = {teacher.teacher.name: teacher.scorer for teacher in config.teachers}
    return RunPlugins(plugins, dataset, eval_dataset, sampler, scorers)


def _datasets(data: DataConfig, registry: Registry) -> tuple[Dataset, Dataset | None]:
    """Where the rows to train on, and those to evaluate, come from."""
    train = _dataset("data.path", data.path, data.source, registry)
    if train is None:
        raise AssertionError("a config has a path or a source")
    return train, _dataset("data.eval_path", data.eval_path, data.eval_source, registry)


def _dataset(key: str, path: Paths | None, source: Dataset | None, registry: Registry) -> Dataset | None:
    return source if path is None else dataset_at(path, key, registry)


def dataset_at(path: Paths, key: str, registry: Registry, options: Mapping[str, str] | None = None) -> Dataset:
    """The dataset for a path; `key` is what messages call that. Raises ConfigError for one that can be no path."""
    try:
        found = registry.build("dataset", {"name": default_source(path), "path": path, **(options or {})})
    except PluginOptionsError as error:
        raise ConfigError(f"{key}: {'; '.join(problem.message for problem in error.problems)}") from error
    if not isinstance(found, Dataset):
        raise AssertionError("the registry builds plugins of the role that it is asked for")
    return found


def require_fitting(config: RunConfig, plugins: RunPlugins, rank: Rank) -> None:
    """Raise InputError where student, loss, evaluators, scorers and processes cannot fit together."""
    require_loss(config, rank)
    require_spreading(config.student, rank)
    require_route_gradients(config)
    require_evaluations(config.evaluators, plugins)
    require_capabilities(config, plugins.sampler)


def require_loss(config: RunConfig, rank: Rank) -> None:
    """Raise InputError unless the student can train what the loss makes."""
    student, loss = config.student, config.loss
    with attribute_to(student, "in loss_functions()"):
        known = student.loss_functions()
    if loss.loss_function not in known:
        _require_own_code(student, loss, rank)
        return
    taken = known[loss.loss_function]
    unknown = {name: value for name, value in loss.options_for(taken).items() if name not in taken}
    if unknown:
        given = ", ".join(f"{name} (here {_shown(value)})" for name, value in unknown.items())
        raise InputError(f"student {student.name!r}: its {loss.loss_function} takes no option {given}")


def _shown(value: JsonValue) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def _require_own_code(student: Student, loss: Loss, rank: Rank) -> None:
    """Raise InputError unless the student can run the loss's own code, and give what that reads."""
    known, given = student.loss_functions(), student.loss_capabilities()
    if loss.token_loss() is None or not given:
        raise InputError(
            f"student {student.name!r} does not know the loss function {loss.loss_function!r} of loss {loss.name!r}; "
            f"{suggest(loss.loss_function, known)}. Student local trains every loss, by its own code"
        )
    lacks = sorted(read_by(loss) - given)
    if lacks:
        raise InputError(
            f"loss {loss.name!r} reads {' and '.join(lacks)} of the student; student {student.name!r} gives "
            f"{', '.join(sorted(given))}{meant_by(loss.needs())}"
        )
    if rank.count > 1:
        _require_travelling(loss)


def _require_travelling(loss: Loss) -> None:
    """Raise InputError where the loss's own code is to travel to other ranks, and cannot."""
    name = getattr(loss.token_loss(), "__qualname__", "")
    if "<" in name:  # <lambda>, or <locals> of another function
        raise InputError(
            f"loss {loss.name!r}: its token_loss cannot be passed to the other ranks, which could not find {name} by "
            "that name; return a function that stands at the top of a module"
        )


def require_capabilities(config: RunConfig, sampler: Sampler) -> None:
    """Raise InputError unless every scorer, and the sampler, can give what loss and weightings need.

    Of the loss's references nothing but the sampled tokens' logprobs is asked.
    """
    references = config.loss.references()
    routed_to = [teacher for teacher in config.teachers if teacher.teacher.name not in references]
    plugins: tuple[Loss | Weighting, ...] = (config.loss, *config.train.weightings)
    for plugin in plugins:
        _require_ids(plugin)
        for teacher in routed_to:
            who = f"scorer {teacher.scorer.name!r} of teacher {teacher.teacher.name!r}"
            with attribute_to(teacher.scorer, "in capabilities()"):
                offered = teacher.scorer.capabilities()
            _require_given(plugin, plugin.needs(), (teacher.scorer, who), offered)
        who = f"sampler {sampler.name!r}"
        _require_given(plugin, plugin.sampler_needs(), (sampler, who), sampler.sampling_capabilities())


def _require_ids(plugin: Loss | Weighting) -> None:
    """Raise InputError where logprobs of given ids are needed, and nothing gives those ids."""
    if "at_ids" in plugin.needs() and "topk" not in plugin.sampler_needs().keys() | plugin.needs().keys():
        raise InputError(
            f"{plugin.role} {plugin.name!r} needs at_ids of the scorers, and nothing gives the ids that they are of: "
            "those are the sampler's (`topk` in its sampler_needs()), and of a row with several teachers each other's "
            "(`topk` in its needs())"
        )


def _require_given(
    plugin: Plugin, needs: Mapping[str, int], giver: tuple[Plugin, str], offered: Mapping[str, int | None]
) -> None:
    """Raise InputError, with what both sides say would fit. `giver`: who is asked, and how messages call it."""
    giving, who = giver
    for need, least in needs.items():
        limit = offered.get(need, 0)
        if limit is None or limit >= least:
            continue
        can = ", ".join(f"{name} up to {most}" if most else name for name, most in offered.items()) or "nothing more"
        ways = [way for side in (giving, plugin) if (way := side.way_out(need, least, limit))]
        raise InputError(
            f"{who} gives {can}; {plugin.role} {plugin.name!r} needs {need}"
            f"{f' of {least}' if least > 1 else ''}{': ' if ways else ''}{', or '.join(ways)}{meant_by([need])}"
        )


def require_references(config: RunConfig) -> None:
    """Raise InputError unless the teachers that the loss names beside the routes are there, and others are too."""
    names, references = [teacher.teacher.name for teacher in config.teachers], config.loss.references()
    for name in references:
        if name not in names:
            raise InputError(
                f"loss {config.loss.name!r} asks teacher {name!r} of every token, and no teacher is called so "
                f"({suggest(name, names)}): add it to teachers, such as `- {{model: ..., route_value: {name}}}`"
            )
    if not set(names) - set(references):
        raise InputError(
            f"loss {config.loss.name!r} takes {' and '.join(map(repr, references))} as a reference, to which no row is "
            "routed, and there is no other teacher; add the one to learn from"
        )


def require_spreading(student: Student, rank: Rank) -> None:
    """Raise InputError where several processes were started for a student that runs in one."""
    if rank.count > 1 and not student.spreads:
        raise InputError(
            f"torchrun started {rank.count} processes, and student {student.name!r} runs in one; use "
            "`distillkit run` alone"
        )


def require_route_gradients(config: RunConfig) -> None:
    """Raise InputError where gradients by route are asked for, of a student that cannot measure them."""
    if config.train.route_gradients_every and not isinstance(config.student, MeasuresRouteGradients):
        raise InputError(
            f"train.route_gradients_every: student {config.student.name!r} cannot measure gradients by route; leave it "
            "out"
        )


def require_evaluations(evaluators: Sequence[Evaluator], plugins: RunPlugins) -> None:
    """Raise InputError unless teachers and student can do what the evaluators ask of them."""
    for evaluator in evaluators:
        if "student_scores" in evaluator.needs and not isinstance(plugins.sampler, TokenScorer):
            raise InputError(
                f"evaluator {evaluator.name!r} scores given tokens under the student, and {plugins.sampler.name!r}, "
                "which samples from it, cannot; remove the evaluator"
            )
        for teacher, scorer in plugins.scorers.items() if "teacher_samples" in evaluator.needs else ():
            if not isinstance(scorer, Sampler):
                raise InputError(
                    f"evaluator {evaluator.name!r} has the teachers write completions, and scorer {scorer.name!r} of "
                    f"teacher {teacher!r} cannot; remove the evaluator"
                )
