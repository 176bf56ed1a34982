"""Where completions end, and whether that is where the teachers' turns end: known before anything is loaded.

A student whose completions end with another token than its teacher's turns learns never to end: behind a finished
answer the teacher gives its own end nearly all probability and the student's none, so that every ending has an
advantage of minus ten and less.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence

from distillkit.config.run_config import RunConfig
from distillkit.config.sections import SamplingConfig, TeacherConfig
from distillkit.data.render import PromptSide, Renderer
from distillkit.data.turn_end_maps import TurnEndMap, TurnEndMaps
from distillkit.errors import InputError
from distillkit.roles.loss import Loss
from distillkit.roles.sampler import Sampler
from distillkit.roles.weighting import Weighting
from distillkit.tokenizer import Tokenizer, TurnEnds
from distillkit.types import SamplingParams

MAPPED = ("sampled", "topk")
"""What of a teacher can be read with other ends of turns."""


def ends_of(side: PromptSide) -> TurnEnds:
    """What ends a turn of this side."""
    return side.tokenizer.turn_ends(side.template_options)


def resolve_ends(config: RunConfig, sampler: Sampler, renderer: Renderer) -> tuple[SamplingParams, TurnEndMaps]:
    """How completions are sampled, with all that ends one, and how teachers read that end. Raises InputError."""
    sampling = resolve_sampling(config.sampling, renderer.student)
    require_sampled(sampler, sampling, renderer.student.tokenizer)
    return sampling, require_turn_ends(config, renderer, sampling)


def resolve_sampling(config: SamplingConfig, student: PromptSide) -> SamplingParams:
    """How completions are sampled, with every id that ends one.

    A stop string that is one special token becomes its id: text is decoded without special tokens, on every backend.

    Raises:
        InputError: for an id that the tokenizer does not have, and a stop string of a special token and more.
    """
    special = student.tokenizer.special_tokens()
    names = {index: token for token, index in student.tokenizer.vocabulary().items()}
    for index in config.stop_ids:
        if index not in names:
            raise InputError(
                f"sampling.stop_ids: {index} is no id of the student's tokenizer; its last is {max(names)}"
            )
    for stop in config.stop:
        held = [token for token in special if token and token in stop]
        if held and stop not in special:
            raise InputError(
                f"sampling.stop: {stop!r} holds the special token {max(held, key=len)!r} and more. A completion's text "
                f"has no special tokens in it, so this would never be found; {max(held, key=len)!r} by itself ends a "
                "completion"
            )
    ids = [*ends_of(student).eos, *config.stop_ids, *(special[stop] for stop in config.stop if stop in special)]
    texts = tuple(stop for stop in config.stop if stop not in special)
    base = config.params
    return SamplingParams(base.max_tokens, base.temperature, base.top_p, base.top_k, texts, tuple(dict.fromkeys(ids)))


def require_sampled(sampler: Sampler, sampling: SamplingParams, student: Tokenizer) -> None:
    """Raise InputError where the sampler cannot end completions at ids that are to end them, or sample so cold."""
    if 0.0 < sampling.temperature < sampler.lowest_temperature:
        raise InputError(
            f"sampling.temperature: {sampler.name!r} does not sample at {sampling.temperature:g}; set it to 0, or to "
            f"{sampler.lowest_temperature:g} or more"
        )
    special = set(student.special_tokens().values())
    texts = [index for index in sampling.stop_ids if index not in special]
    if texts and not sampler.stops_at_any_id:
        raise InputError(
            f"sampling.stop_ids: {sampler.name!r} ends completions at special tokens alone, and "
            f"{_named(texts, student)} is none; take its text, in sampling.stop"
        )


def require_turn_ends(config: RunConfig, renderer: Renderer, sampling: SamplingParams) -> TurnEndMaps:
    """The maps of teachers with `turn_end: map`. Raises InputError where turns of student and teachers end otherwise.

    `sampling` is what `resolve_sampling` gives.
    """
    student, tokenizer = ends_of(renderer.student), renderer.student.tokenizer
    maps: dict[str, TurnEndMap] = {}
    problems: list[str] = []
    missing: set[int] = set()
    for section in config.teachers:
        name = section.teacher.name
        teacher = ends_of(renderer.teachers[name])
        if section.turn_end == "map":
            found = _map_of(section, student, teacher, sampling)
            maps |= {} if found is None else {name: found}
            continue
        others = [index for index in teacher.own if index not in sampling.stop_ids]
        if others and teacher != student:  # of one that ends as the student does, that is the student's own problem
            missing |= set(others)
            problems.append(_teacher_problem(name, others, sampling.stop_ids, tokenizer, renderer.teachers[name]))
    if any(section.turn_end == "same" for section in config.teachers):
        alike = all(ends_of(side) == student for side in renderer.teachers.values())
        problems += _own_problem(student, sampling.stop_ids, missing, tokenizer, alike=alike)
    if problems:
        raise InputError("\n".join(problems))
    if maps:
        plugins: tuple[Loss | Weighting, ...] = (config.loss, *config.train.weightings)
        for plugin in plugins:
            _require_mappable(f"{plugin.role} {plugin.name!r}", plugin.needs())
    return TurnEndMaps(maps)


def _map_of(
    section: TeacherConfig, student: TurnEnds, teacher: TurnEnds, sampling: SamplingParams
) -> TurnEndMap | None:
    """The map of a teacher, or None where its turns end as the student's do."""
    who = f"teacher {section.teacher.name!r}: turn_end: map"
    ends = [index for index in student.own if index in sampling.stop_ids] or list(student.eos or sampling.stop_ids)
    if not ends:
        raise InputError(
            f"{who} needs an end of the student's, and nothing ends its completions; set sampling.stop_ids"
        )
    if len(teacher.own) != 1:
        known = f"its EOS ids are {list(teacher.own)}" if teacher.own else "it has no EOS id"
        raise InputError(f"{who} needs to know what ends its turns: its chat template does not show that, and {known}")
    (end,) = teacher.own
    if ends == [end]:
        return None
    return TurnEndMap(tuple(ends), end, both_ways=end not in sampling.stop_ids)


def _require_mappable(who: str, needs: Mapping[str, int]) -> None:
    more = [need for need in needs if need not in MAPPED]
    if more:
        raise InputError(
            f"{who} needs {', '.join(more)} of its teachers, and turn_end: map knows how to read "
            f"{' and '.join(MAPPED)} alone; let completions end with the teacher's token instead (sampling.stop_ids)"
        )


def _teacher_problem(
    name: str, others: Sequence[int], ends: Sequence[int], student: Tokenizer, teacher: PromptSide
) -> str:
    """Why a run under this teacher is refused: both tokens, what would happen, and both ways out."""
    can_sample = set(student.vocabulary().values())
    ways = ["turn_end: map for this teacher, which scores the student's end as the teacher's own"]
    if can_sample.issuperset(others):
        ways.insert(0, f"{_stop_way(others, student)}, which ends completions there")
    return (
        f"teacher {name!r} ends its turns with {_named(others, teacher.tokenizer)}, and the student's completions end "
        f"with {_named(ends, student)}: the teacher gives that end next to no probability, so every ending would get "
        f"a large negative advantage, and the student would learn never to end. Set {'; or '.join(ways)}"
    )


def _own_problem(
    student: TurnEnds, ends: Collection[int], said: Collection[int], tokenizer: Tokenizer, *, alike: bool
) -> Iterator[str]:
    """Why a student that runs on past its own turn's end is refused, unless that was said of the same token.

    `alike`: its teachers end their turns as it does.
    """
    own = student.template
    if own is None or own in ends or own in said:
        return
    yield (
        f"the student's chat template ends a turn with {_named([own], tokenizer)}, and its completions end with "
        f"{_named(ends, tokenizer)}: one that closes its turn would run on past it, and the student would learn from "
        f"what stands behind. Set {_stop_way([own], tokenizer)}"
        + ("" if alike else "; or turn_end: map for every teacher, if the student is to keep its end")
    )


def _stop_way(ids: Sequence[int], tokenizer: Tokenizer) -> str:
    special = {index: token for token, index in tokenizer.special_tokens().items()}
    way = f"sampling.stop_ids: {list(ids)}"
    return f"{way} or sampling.stop: {[special[index] for index in ids]}" if special.keys() >= set(ids) else way


def _named(ids: Collection[int], tokenizer: Tokenizer) -> str:
    return " or ".join(f"{tokenizer.show([index])!r} (id {index})" for index in ids) or "nothing but the length limit"
