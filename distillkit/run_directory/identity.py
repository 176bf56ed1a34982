"""What makes a run this run: two runs of the same identity give the same numbers, so one may go on for the other."""

import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path

from pydantic import JsonValue

from distillkit.config.run_config import RunConfig
from distillkit.data.render import PromptSide
from distillkit.errors import InputError
from distillkit.preflight.compatibility import RunPlugins
from distillkit.preflight.prepared_run import PreparedRun
from distillkit.roles.plugin import Plugin
from distillkit.roles.returned import returned
from distillkit.run_directory.plugin_code import plugin_code
from distillkit.run_directory.settings import at_default, settings_of
from distillkit.tokenizer import tokenizer_fingerprint
from distillkit.types import Message, Messages

HELD_OUT = "the held-out rows"
"""May change, and the user reads then that numbers from before and after are of different rows."""
CODE = "the code of "
"""Of a script or a package: may change, since who mends a plugin that failed goes on with it, and the user reads it."""
AT_DEFAULT = "options at their defaults"
"""Not compared: it says which options a version that does not know them can do without."""
PLACE = re.compile(r"(?P<user>student|teachers\.\d+)\.(?P<option>model|adapter|tokenizer_model|route_value)")
"""The options that say where a model, an adapter or a tokenizer is, and how a teacher is called."""
CONTENT = {"model": "weights", "adapter": "starting adapter"}
"""What a fingerprint calls what is there."""
WHY = Message("user", "Why?")
CALL: JsonValue = {"type": "function", "function": {"name": "look", "arguments": {"at": "it"}}}
TOOLS: JsonValue = [{"type": "function", "function": {"name": "look", "description": "Look.", "parameters": {}}}]
TEMPLATE_PROBES: tuple[tuple[Messages, Mapping[str, JsonValue]], ...] = (
    ((Message("system", "Be brief."), WHY, Message("assistant", "So."), WHY), {}),
    ((WHY,), {}),  # for templates that know no system turn
    ((WHY, Message("assistant", "", {"tool_calls": [CALL]}), Message("tool", "That.")), {"tools": TOOLS}),
)
"""Chats, with options of their rows, that show what a template makes of messages and tools."""


def identity_of(prepared: PreparedRun) -> dict[str, JsonValue]:
    """What the run is, by name: options by their key, data, tokenizers and models by fingerprint ("the ...")."""
    sides = {"student": prepared.renderer.student}
    sides |= {f"teacher {name!r}": side for name, side in prepared.renderer.teachers.items()}
    return {
        **settings_of(prepared.config),
        "the rows": prepared.dataset.digest,
        "the mapping of data.format": {**prepared.read_as.mapping},
        **({HELD_OUT: _held_out_digest(prepared)} if prepared.config.evaluators else {}),
        **{f"the tokenizer or chat template of {who}": _tokens(side) for who, side in sides.items()},
        "the ids that end a completion": [*sorted(prepared.ending_ids)],
        **dict(_fingerprints(prepared.plugins)),
        **dict(_code(prepared)),
        AT_DEFAULT: [*at_default(prepared.config)],
    }


def require_same(then: Mapping[str, JsonValue], now: Mapping[str, JsonValue], checkpoint: Path) -> None:
    """Raise InputError if a checkpoint is of another run, naming all that has changed."""
    changed = list(changes(then, now))
    if changed:
        raise InputError(
            "\n".join(
                [
                    f"{checkpoint} was written by another run than this one would be:",
                    *(f"  {line}" for line in changed),
                    "take the changes back, begin anew by --overwrite, or go on all the same by --resume --force "
                    "(in Python: force=True)",
                ]
            )
        )


def require_same_student(then: Mapping[str, JsonValue], config: RunConfig) -> None:
    """Raise InputError unless weights that a run of identity `then` saved are of this config's student.

    Its options and what is known of its model count, and not what a run does with it.
    """
    known = returned(config.student, "fingerprint", Mapping, config.student.fingerprint)
    now = {key: value for key, value in settings_of(config).items() if key.startswith("student.")}
    now |= {f"the {what} of student": value for what, value in known.items()}
    before = {name: then[name] for name in now if name in then}
    now[AT_DEFAULT] = [*at_default(config)]
    changed = list(changes(before, now))
    if changed:
        raise InputError("\n".join(["the weights are those of another student:", *(f"  {line}" for line in changed)]))


def changes(then: Mapping[str, JsonValue], now: Mapping[str, JsonValue]) -> Iterator[str]:
    """One line for each part that is not what it was."""
    for name in dict.fromkeys([*then, *now]):
        if name in (HELD_OUT, AT_DEFAULT) or name.startswith(CODE):
            continue
        if _is_same(name, then, now) or _only_moved(name, then, now):
            continue
        if _is_digest(then.get(name)) and _is_digest(now.get(name)):
            yield f"{name} changed"
        else:
            yield f"{name} was {_shown(name, then, now)}, is {_shown(name, now, then)}{_way_to_move(name, then, now)}"


def other_code(then: Mapping[str, JsonValue], now: Mapping[str, JsonValue]) -> list[str]:
    """The scripts and packages whose code is not what it was, by name."""
    return [
        name.removeprefix(CODE) for name in then if name.startswith(CODE) and now.get(name, then[name]) != then[name]
    ]


def other_held_out(then: Mapping[str, JsonValue], now: Mapping[str, JsonValue]) -> bool:
    """Whether both evaluate held-out rows, and not the same ones."""
    return HELD_OUT in then and HELD_OUT in now and then[HELD_OUT] != now[HELD_OUT]


def _is_same(name: str, then: Mapping[str, JsonValue], now: Mapping[str, JsonValue]) -> bool:
    """Whether a part is what it was, or is missing on one side for want of knowledge.

    That is so of a fingerprint, and of an option at its default that another version of distillkit, or of a plugin,
    does not have. A teacher that is new or gone shows in its options.
    """
    if name in then and name in now:
        return then[name] == now[name]
    defaults = (then if name in then else now).get(AT_DEFAULT)
    return name.startswith("the ") or (isinstance(defaults, list) and name in defaults)


def _only_moved(name: str, then: Mapping[str, JsonValue], now: Mapping[str, JsonValue]) -> bool:
    """Whether an option says where a model or tokenizer is, and its content was known both times: that is compared.

    Or how a teacher is called that is called as it was: by default as its model.
    """
    found = PLACE.fullmatch(name)
    if found is None or found["option"] == "tokenizer_model":  # the tokenizer's content is always known
        return found is not None
    user = _user(found["user"], then)
    if found["option"] == "route_value":
        return user == _user(found["user"], now)
    content = f"the {CONTENT[found['option']]} of {user}"
    return content in then and content in now


def _way_to_move(name: str, then: Mapping[str, JsonValue], now: Mapping[str, JsonValue]) -> str:
    """How a teacher keeps its name where its model lies elsewhere; empty for anything else."""
    found = PLACE.fullmatch(name)
    if found is None or found["option"] != "model" or _user(found["user"], then) == _user(found["user"], now):
        return ""
    return f"; if it is that model, which lies elsewhere now, keep its name: {found['user']}.route_value={then[name]}"


def _user(key: str, parts: Mapping[str, JsonValue]) -> str:
    """Whose model an option is of, as fingerprints call it."""
    return key if key == "student" else f"teacher {parts.get(f'{key}.route_value') or parts.get(f'{key}.model')!r}"


def _fingerprints(plugins: RunPlugins) -> Iterator[tuple[str, str]]:
    """What plugins know of what is behind them."""
    names = {f"teachers.{teacher}.scorer": f"teacher {teacher!r}" for teacher in plugins.scorers}
    for key, plugin in _counting(plugins):
        known = returned(plugin, "fingerprint", Mapping, plugin.fingerprint)
        yield from ((f"the {what} of {names.get(key, key)}", value) for what, value in known.items())


def _code(prepared: PreparedRun) -> Iterator[tuple[str, str]]:
    """The code of the scripts and packages that the run's plugins come from."""
    plugins = (plugin for _, plugin in _counting(prepared.plugins))
    yield from ((f"{CODE}{name}", digest) for name, digest in plugin_code(prepared.registry, plugins))


def _counting(plugins: RunPlugins) -> Iterator[tuple[str, Plugin]]:
    """The plugins that numbers come from; those that only watch do not count."""
    return ((key, plugin) for key, plugin in plugins.by_key.items() if not key.startswith(("sinks.", "evaluators.")))


def _held_out_digest(prepared: PreparedRun) -> str:
    """A row's id holds its place in the file and a hash of its content."""
    return hashlib.sha256(json.dumps([row.row_id for row in prepared.eval_rows]).encode()).hexdigest()[:16]


def _tokens(side: PromptSide) -> str:
    rendered = []
    for messages, options in TEMPLATE_PROBES:
        try:
            rendered.append(side.tokenizer.render(messages, {**side.template_options, **options}))
        except InputError:  # a template that refuses these turns, in words that name where it lies
            rendered.append([])
    return hashlib.sha256(json.dumps([tokenizer_fingerprint(side.tokenizer), rendered]).encode()).hexdigest()[:16]


def _is_digest(value: JsonValue) -> bool:
    return isinstance(value, str) and re.fullmatch(r"[0-9a-f]{16}", value) is not None


def _shown(name: str, parts: Mapping[str, JsonValue], others: Mapping[str, JsonValue]) -> str:
    """A part, shortened; of a mapping what the other side does not have as well."""
    if name not in parts:
        return "not there"
    value, other = parts[name], others.get(name)
    if isinstance(value, Mapping) and isinstance(other, Mapping):
        value = {key: item for key, item in value.items() if key not in other or other[key] != item}
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 80 else f"{text[:77]}..."
