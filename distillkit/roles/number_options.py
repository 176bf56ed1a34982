"""Options that are numbers take no switch: `lora_rank: no` would be 0, which trains all weights."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, get_args, get_origin

from pydantic import BaseModel, ValidationInfo, field_validator

from distillkit.roles.type_aliases import alternatives

NUMBERS = (int, float)
LISTS = (tuple, list, set, frozenset)


class NumberOptions(BaseModel):
    """Options of which those that are numbers refuse true and false, also inside of lists and groups of options.

    Python counts both among its integers, and YAML writes them in many ways (yes, no, on, off).
    """

    @field_validator("*", mode="before")
    @classmethod
    def _are_no_switches(cls, value: object, info: ValidationInfo) -> object:
        found = next(_switches([cls.model_fields[str(info.field_name)].annotation], value, ""), None)
        if found is None:
            return value
        path, switch = found
        raise ValueError(
            f"{path}input should be a number, not {str(switch).lower()} (YAML reads yes and on as true, no and off as "
            f"false); write {int(switch)} where that is meant"
        )


def _switches(annotations: Sequence[Any], value: object, path: str) -> Iterator[tuple[str, bool]]:
    """Each switch in the place of a number, with its path below the option; a group that looks itself is left out."""
    kinds = [kind for annotation in annotations for kind in alternatives(annotation)]
    if isinstance(value, bool):
        if bool not in kinds and any(kind in NUMBERS for kind in kinds):
            yield path and f"{path.removeprefix('.')}: ", value
    elif isinstance(value, Mapping):
        for group in (kind for kind in kinds if isinstance(kind, type) and issubclass(kind, BaseModel)):
            for name, field in group.model_fields.items() if not issubclass(group, NumberOptions) else ():
                yield from _switches([field.annotation], value.get(name), f"{path}.{name}")
    elif isinstance(value, Sequence) and not isinstance(value, str | bytes):
        of = [item for kind in kinds if get_origin(kind) in LISTS for item in get_args(kind) if item is not Ellipsis]
        for index, item in enumerate(value if of else ()):
            yield from _switches(of, item, f"{path}.{index}")
