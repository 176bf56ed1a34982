"""`distillkit init --from`: a commented config for rows that are there, with the mapping that reads them."""

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from pydantic import JsonValue

from distillkit.cli.scaffold import ONE_TEACHER, config_of, write_files
from distillkit.config.default_plugins import default_source
from distillkit.data.parse_row import parse_columns
from distillkit.data.row_format.column_templates import in_quotes, of_column
from distillkit.data.row_format.recognition import LOOKED_AT, columns_of, in_yaml, suggested
from distillkit.data.row_format.row_format import RowFormat
from distillkit.data.row_format.shapes import shapes_of
from distillkit.errors import DataError, RowError
from distillkit.files.strict_json import shortened
from distillkit.preflight.compatibility import dataset_at
from distillkit.raw_row import UnreadableRow
from distillkit.registry import Registry
from distillkit.roles.attribution import attribute_to
from distillkit.verdict.paired_change import rows_to_hold_out

EVALUATED = """  eval_every: 10
  save_every: 10

evaluators: [reverse_kl]   # and exact_match, which compares `Final: <answer>` with a row's expected_answer
"""
NOT_EVALUATED = """  save_every: 10

evaluators: []          # with held-out rows: [reverse_kl]
"""
MOST_HELD_OUT, SHARE_HELD_OUT = 32, 5
"""Rows that are held out: one of five that there are, and no more than this, unless a verdict takes more."""
ROUTED = """teachers:               # each row is scored by the one teacher that {says}
  - model: Qwen/Qwen3-1.7B
    route_value: {first}
  - model: Qwen/Qwen3-1.7B
    route_value: {second}

router:
  name: field
  route_key: {key}
"""
SPLITS_HELD_OUT = ("validation", "valid", "dev", "test")
"""What splits are called that are there to be measured on, those for the time of training first."""
TO_SAY = "say in data.format of config.yaml what prompts are made of, then "
PATHS = "data:                   # paths start where distillkit is called: here, in the folder of this file\n"
LONGEST_ROUTE, MOST_ROUTES = 40, 10
"""Characters of a value, and how many values a column may have, to be one that says what kind a row is."""
Columns = Mapping[str, JsonValue]


@dataclass(frozen=True, slots=True)
class FromData:
    """What was written."""

    files: Sequence[Path]
    to_do: str = ""
    """What the user has to do before the next command; empty where nothing is left open."""


def write_for(path: str, directory: Path, teachers: int, registry: Registry) -> FromData:
    """Write a config into `directory` for the rows at `path`. Raises InputError, also rather than overwrite a file."""
    first, options = _read(path, registry)
    rows = first[:LOOKED_AT]
    held_out = rows_to_hold_out(len(first), teachers, min(MOST_HELD_OUT, len(first) // SHARE_HELD_OUT))
    shapes = dict(shapes_of(rows))
    route, section = ("", ONE_TEACHER) if teachers == 1 else _routed(rows, _columns_read(shapes))
    mapping = "".join(_mapping(rows, shapes, route))
    line = _other_split(path, directory, rows, registry)
    if not line and held_out:
        line = f"  held_out_rows: {held_out}     # kept apart to measure progress on; or eval_path, rows of their own\n"
    data = f"{PATHS}  {_source(path, directory, options)}\n{mapping}{line}  epochs: 1\n\n"
    text = config_of(data, section, EVALUATED if line else NOT_EVALUATED)
    files = write_files(directory, {"config.yaml": text})
    return FromData(files, "" if len(shapes) == 1 else TO_SAY)


def _other_split(path: str, directory: Path, rows: Sequence[Columns], registry: Registry) -> str:
    """The line for the split of the same dataset that is there to be measured on; empty: it has none, or no split."""
    whole, mark, split = path.rpartition("#")
    for name in SPLITS_HELD_OUT if mark and default_source(path) == "hf" else ():
        if name == split:
            continue
        try:
            found = _first_rows(f"{whole}#{name}", registry)
        except DataError:
            continue  # none of that name, or none that can be read: these rows were not asked for
        if set(columns_of(rows)) <= set(columns_of(found)):
            few = f"\n  max_eval_rows: {MOST_HELD_OUT}     # the first of them" if len(found) > MOST_HELD_OUT else ""
            return f"  eval_path: {_from(f'{whole}#{name}', directory)}   # to measure progress on{few}\n"
    return ""


def _read(path: str, registry: Registry) -> tuple[list[Columns], Mapping[str, str]]:
    """As `_first_rows`, and the options by which the dataset could read them, if it needs any."""
    try:
        return _first_rows(path, registry), {}
    except DataError as error:
        if not error.options:
            raise
        return _first_rows(path, registry, error.options), error.options


def _source(path: str, directory: Path, options: Mapping[str, str]) -> str:
    """The line that says where rows come from."""
    if not options:
        return f"path: {_from(path, directory)}"
    given = "".join(f", {name}: {in_yaml(value)}" for name, value in options.items())
    return f"source: {{name: {default_source(path)}, path: {_from(path, directory)}{given}}}"


def _first_rows(path: str, registry: Registry, options: Mapping[str, str] | None = None) -> list[Columns]:
    """The columns of the first rows that can be read. Raises DataError where there are none."""
    dataset = dataset_at(path, "--from", registry, options)
    rows, problem = [], None
    with attribute_to(dataset, "in read()"):
        for raw in islice(dataset.read(), max(LOOKED_AT, MOST_HELD_OUT * SHARE_HELD_OUT)):
            try:
                if isinstance(raw, UnreadableRow):
                    raise raw.problem
                rows.append(parse_columns(raw))
            except RowError as error:
                problem = problem or f"{raw.file.place(raw.number)}: {error}"
    if not any(rows):
        raise DataError(problem or f"{dataset.place()}: holds no rows with columns")
    return rows


def _from(path: str, directory: Path) -> str:
    """A path as it is written in a config in `directory`."""
    if path.startswith("hf://") or Path(path).is_absolute():
        return in_yaml(path)
    return in_yaml(os.path.relpath(path, directory))


def _mapping(rows: Sequence[Columns], shapes: Mapping[str, Columns], route: str) -> Iterator[str]:
    """The lines of `data.format`; in comments, where the user has to choose or to say it."""
    yield f"  # columns: {shortened(', '.join(map(_printable, columns_of(rows))), 400)}\n"
    if len(shapes) == 1:
        ((shape, mapping),) = shapes.items()
        yield f"  format:               # rows are read as {shape}\n"
        yield from (f"    {name}: {in_yaml(value)}\n" for name, value in mapping.items())
        if "expected_answer" in mapping:
            privileged = f"{mapping['prompt']}\n\nThe answer: {mapping['expected_answer']}"
            yield f"    # teacher_prompt: {in_yaml(privileged)}   # what only teachers read\n"
    else:
        what = "which of these is meant?" if shapes else "what are prompts made of? Such as this:"
        yield f"  {'' if route else '# '}format:   # {what}\n"
        for mapping in shapes.values() or [suggested(rows)]:
            yield from (f"  #   {name}: {in_yaml(value)}\n" for name, value in mapping.items())
    yield route


def _columns_read(shapes: Mapping[str, Columns]) -> frozenset[str]:
    return frozenset(name for mapping in shapes.values() for name in RowFormat.of(mapping).mapped)


def _routed(rows: Sequence[Columns], read: frozenset[str]) -> tuple[str, str]:
    """A line of `data.format` and the sections of two teachers, by a column that says what kind a row is."""
    kinds = {name: texts for name, texts in _kinds(rows) if name not in read}
    key = next((name for name in ("teacher", *kinds) if len(kinds.get(name, ())) == 2), None)
    if key is not None:
        first, second = kinds[key]
        routes = {"first": in_yaml(first), "second": in_yaml(second), "key": in_yaml(key)}
        return "", ROUTED.format(says=f"its column {_printable(key)} names", **routes)
    name, values = next(iter(kinds.items()), ("", ()))
    column = of_column(name).strip("{} ")
    template = f"{{{{ 'first' if {column} == {in_quotes(values[0])} else 'second' }}}}" if values else "first"
    why = f"{_printable(name)} is {', '.join(values)}" if values else "all rows, until it says which"
    line = f"    teacher: {in_yaml(template)}   # {why}\n"
    return line, ROUTED.format(says="data.format.teacher names", first="first", second="second", key="teacher")


def _kinds(rows: Sequence[Columns]) -> Iterator[tuple[str, list[str]]]:
    """The columns that have few short texts, with those."""
    for name in columns_of(rows):
        values = [row.get(name) for row in rows]
        texts = [value for value in values if isinstance(value, str) and value.isprintable() and value]
        kinds = list(dict.fromkeys(texts))
        few = name.isprintable() and 2 <= len(kinds) <= min(MOST_ROUTES, len(rows) // 2)
        if few and len(texts) == len(values) and max(map(len, kinds)) <= LONGEST_ROUTE:
            yield name, kinds


def _printable(name: str) -> str:
    return name if name.isprintable() else in_yaml(name)
