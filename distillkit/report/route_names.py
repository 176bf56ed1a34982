"""What a run's routes are called: in metric names by slugs, in files by labels, and for people."""

from collections.abc import Mapping
from dataclasses import dataclass

from pydantic import JsonValue

from distillkit.data.teacher_names import shown_names, slugs
from distillkit.frozen import FrozenDict, Value, freeze_fields


@dataclass(frozen=True, slots=True)
class RouteNames(Value):
    """The names of a run's teachers, and so of its routes; an unknown one stays as it is."""

    slug: Mapping[str, str]
    """A teacher's name, as `samples.jsonl` has it, to what metric names call it."""
    shown: Mapping[str, str]
    """What metric names call a teacher, to how people read it."""

    def __post_init__(self) -> None:
        """Hold read-only copies."""
        freeze_fields(self, "slug", "shown")

    def slug_of(self, label: str) -> str:
        """What metric names call the route of this label; of several teachers they are joined by `+`."""
        return _joined(label, self.slug)

    def shown_label(self, label: str) -> str:
        """How people read the route of this label, or the teacher of this name."""
        return self.shown_as(self.slug_of(label))

    def shown_as(self, slug: str) -> str:
        """How people read the route that metric names call so."""
        return _joined(slug, self.shown)


def route_names(config: Mapping[str, JsonValue]) -> RouteNames:
    """The names that the teachers of a run's `config.yaml` have."""
    teachers = config.get("teachers")
    models, names = [], []
    for teacher in teachers if isinstance(teachers, list) else []:
        if isinstance(teacher, Mapping):
            models.append(str(teacher.get("model")))
            names.append(str(teacher.get("route_value") or models[-1]))
    if len({*names}) < len(names):  # no run has such a config
        return RouteNames(FrozenDict(), FrozenDict())
    shown = shown_names(names, models)
    slug = slugs(shown, names)
    return RouteNames(dict(zip(names, slug, strict=True)), dict(zip(slug, shown, strict=True)))


def _joined(name: str, known: Mapping[str, str]) -> str:
    return known.get(name) or "+".join(known.get(part, part) for part in name.split("+"))
