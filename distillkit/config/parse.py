"""Config files as text and as trees of plain values: YAML, TOML and JSON, each read as strictly as the others.

Whatever is in a file, reading it takes bounded time and memory: its size is limited, and so is what YAML's aliases
make of it.
"""

import re
import stat
import tomllib
from collections.abc import Callable, Mapping
from datetime import date
from pathlib import Path
from typing import Any, cast

import yaml

from distillkit.errors import ConfigError
from distillkit.files.near_paths import did_you_mean
from distillkit.files.strict_json import LONE_SURROGATE, MAX_DEPTH, NO_TEXT, ContentError, location_of, parse_json, walk

Tree = dict[str, Any]
MAX_BYTES = 256 * 1024
"""Of a file. PyYAML reads about 100 kB a second."""
MAX_SIZE = 2**22
"""Of a config whose aliases are written out (`[*a, *a]` in `b`, `[*b, *b]` in `c`, ...), in characters."""
SIZE_OF_A_VALUE = 16
MAX_MERGED = 100_000
"""Keys that `<<` brings together."""
MAX_INTEGER = 2**63 - 1
TOML_KEY_ENDS = re.compile(r"[=,\[\]{}\n#]")
MAX_DIGITS = 100
"""Of a number in YAML, whose `1:1:1:...` (to the base of 60) takes time by the square of its length."""
NUMBERS = ("tag:yaml.org,2002:int", "tag:yaml.org,2002:float")
OTHER_BASE = re.compile(r"[-+]?(0[0-7_]+|[0-9_]+(:[0-9_]+)+(\.[0-9_]*)?)")
"""Numbers that YAML 1.1 reads to the base of 8 or 60, and most other languages, or people, as something else."""
OF_A_SCALAR = (ValueError, KeyError, IndexError, AttributeError, TypeError, OverflowError)
"""What PyYAML raises for `!!bool maybe`, `!!int ""`, `!!timestamp x`, `!!map [1]` or an escape beyond Unicode."""


INIT = "; `distillkit init` writes one to start from"


def read_text(path: Path) -> str:
    """What a config file holds, without a byte order mark. Raises ConfigError."""
    raw = _read_bytes(path)
    if len(raw) > MAX_BYTES:
        raise ConfigError(f"{path}: is larger than {MAX_BYTES // 1024} KiB, which is no config; is it data?")
    try:
        return raw.decode("utf-8-sig").replace("\r\n", "\n").replace("\r", "\n")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        byte = f"0x{raw[error.start]:02x}"
        raise ConfigError(f"{path}:{line}: cannot be read: byte {byte} is not UTF-8; save the file as UTF-8") from error


def _read_bytes(path: Path) -> bytes:
    """One byte more than there may be, if there are more."""
    try:
        mode = path.stat().st_mode
        if stat.S_ISREG(mode):
            with path.open("rb") as file:
                return file.read(MAX_BYTES + 1)
    except FileNotFoundError as error:
        raise ConfigError(f"{path}: no such config file{did_you_mean(path) or INIT}") from error
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from error
    except ValueError as error:  # a NUL or half of a character in the name
        raise ConfigError(f"{str(path)!r}: no such config file; no file can be called that") from error
    if stat.S_ISDIR(mode):
        inside = f"; the config in it is {path / 'config.yaml'}" if (path / "config.yaml").is_file() else ""
        raise ConfigError(f"{path}: is a directory, and a config is a file{inside}")
    raise ConfigError(f"{path}: cannot be read: it is no regular file, and a config is read more than once")


class OtherBaseError(yaml.constructor.ConstructorError):
    """A number that YAML would read to another base than 10, though nothing in it says so."""


class _StrictLoader(yaml.SafeLoader):
    """YAML in which keys are text, one that stands twice is an error, as in TOML, and a date is the text that it is."""

    yaml_implicit_resolvers = {  # noqa: RUF012 - PyYAML's own
        start: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:timestamp"]
        for start, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }

    def __init__(self, text: str) -> None:
        """Read `text`; merge keys (`<<`) are counted from zero."""
        super().__init__(text)
        self._merged = 0

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:  # noqa: ANN401 - what YAML holds
        """PyYAML's, with a line for what its constructors stumble over."""
        if node.tag in NUMBERS and len(node.value) > MAX_DIGITS:
            raise _error_at(node, f"a number has no more than {MAX_DIGITS} characters")
        try:
            value = super().construct_object(node, deep)
        except OF_A_SCALAR as error:
            said = str(error) if isinstance(error, ValueError) else f"this is no {node.tag.rpartition(':')[2]}"
            raise _error_at(node, said) from error
        if node.tag in NUMBERS and OTHER_BASE.fullmatch(node.value) and value != 0:
            base = 60 if ":" in node.value else 8
            problem = f"YAML reads {node.value} to the base of {base}, as {value}: write {value}, or quote it"
            raise OtherBaseError(None, None, problem, node.start_mark)
        return value

    def flatten_mapping(self, node: yaml.MappingNode) -> None:
        """PyYAML's, bounded: it is called for each source of `<<` before what that holds is copied."""
        super().flatten_mapping(node)
        self._merged += len(node.value)
        if self._merged > MAX_MERGED:
            raise _error_at(node, f"`<<` brings more than {MAX_MERGED} keys together")


def _unique_keys(loader: _StrictLoader, node: yaml.MappingNode) -> Tree:
    if not isinstance(node, yaml.MappingNode):
        raise _error_at(node, f"a {node.id} is no mapping")
    seen: set[str] = set()
    for key, _ in node.value:
        if not isinstance(key, yaml.ScalarNode):
            quoted = "; put a template in quotes: '{{ column }}'" if isinstance(key, yaml.MappingNode) else ""
            raise _error_at(key, f"a {key.id} is no key; a key is plain text{quoted}")
        if key.tag not in (yaml.resolver.BaseResolver.DEFAULT_SCALAR_TAG, "tag:yaml.org,2002:merge"):
            raise _error_at(key, f"the key {key.value!r} is no text for YAML; put it in quotes")
        if key.value in seen:
            raise _error_at(key, f"the key {key.value!r} stands twice")
        seen.add(key.value)
    return cast(Tree, loader.construct_mapping(node, deep=True))


def _error_at(node: yaml.Node, problem: str) -> yaml.MarkedYAMLError:
    return yaml.constructor.ConstructorError(None, None, problem, node.start_mark)


_StrictLoader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _unique_keys)


def parse_yaml(text: str) -> object:
    """The content of `text`. Raises yaml.YAMLError, ValueError (ContentError where the location is known)."""
    try:
        value = yaml.load(text, Loader=_StrictLoader)  # noqa: S506 - a SafeLoader
    except OverflowError as error:
        raise ContentError("holds an escape that is no character") from error
    require_plain(value)
    return value


def _parse_toml(text: str) -> object:
    # Its parser takes time by the square of the number of parts.
    if any(piece.count(".") > MAX_DEPTH for piece in TOML_KEY_ENDS.split(text)):
        raise ContentError(f"holds a key of more than {MAX_DEPTH} parts")
    value = _dates_as_text(tomllib.loads(text))
    require_plain(value)
    return value


def _dates_as_text(value: Any) -> Any:  # noqa: ANN401 - what TOML holds
    """TOML with its days as text, as `2026-11-29`; what has a time of day is left as it is."""
    if isinstance(value, dict):
        return {key: _dates_as_text(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_dates_as_text(inner) for inner in value]
    return value.isoformat() if type(value) is date else value


def _parse_json(text: str) -> object:
    value = parse_json(text)
    require_plain(value)
    return value


PARSERS: Mapping[str, Callable[[str], object]] = {
    ".toml": _parse_toml,
    ".json": _parse_json,
    ".yaml": parse_yaml,
    ".yml": parse_yaml,
}


def require_plain(value: Any) -> None:  # noqa: ANN401 - what a parser made
    """Raise ContentError for what no option can be, and for what would not end if it were written out."""
    size = 0
    for linked, inner in walk(value):
        size += SIZE_OF_A_VALUE
        if size > MAX_SIZE:
            raise ContentError("is too large, at least once its aliases (*name) are written out")
        if isinstance(inner, str):
            size += len(inner)
            if LONE_SURROGATE.search(inner):
                raise ContentError(NO_TEXT, location_of(linked))
            if "\0" in inner:
                raise ContentError("holds a NUL character (\\0), which no option takes", location_of(linked))
        elif isinstance(inner, int) and abs(inner) > MAX_INTEGER:
            raise ContentError("is an integer beyond 64 bits", location_of(linked))
        elif not isinstance(inner, int | float | list | dict | None):
            raise ContentError(f"is read as a {type(inner).__name__}; put it in quotes", location_of(linked))
