"""The model card as it goes to the hub: what the export's own card says of loading it, and what the run came to."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml
from pydantic import JsonValue

from distillkit.run_directory.codec import from_json
from distillkit.verdict.run_verdict import Change
from distillkit.verdict.verdict_sentences import OUTCOMES, Verdict, verdict_lines

TAGS = ("distillkit", "on-policy-distillation")
LOADING = re.compile(r"```python\n.*?\n```\n(?P<notes>.*?)(?=`config\.yaml` and `summary\.json`|\Z)", re.DOTALL)
NOT_A_BENCHMARK = "Held-out rows of the run's own data, before and after training; no benchmark."


@dataclass(frozen=True, slots=True)
class CardFacts:
    """What a card says that the run's files do not, or not so."""

    repo: str
    base: str | None
    """The base model on the hub; None: it has no name there."""
    licence: str
    is_adapter: bool


def hub_card(written: str, facts: CardFacts, config: Mapping[str, JsonValue], summary: Mapping[str, JsonValue]) -> str:
    """The card of a run with this config and summary; `written` is what the export says."""
    found = _section(summary, "verdict")
    verdict = from_json(Verdict, found) if found else None
    parts = [
        f"# {facts.repo.partition('/')[2]}",
        _intro(facts, config),
        "## Load it",
        _loading(written, facts),
        "## What the run came to",
        *(_results(verdict) if verdict else ()),
        "## How it was trained",
        "\n".join(f"- {name}: {value}" for name, value in _settings(config, summary)),
    ]
    return f"---\n{yaml.safe_dump(_metadata(facts), sort_keys=False)}---\n\n" + "\n\n".join(parts) + "\n"


def _metadata(facts: CardFacts) -> dict[str, object]:
    """What the hub reads. No `model-index`: rows that nobody else has are no benchmark."""
    return {
        **({"base_model": facts.base} if facts.base else {}),
        "library_name": "peft" if facts.is_adapter else "transformers",
        "license": facts.licence,
        "pipeline_tag": "text-generation",
        "tags": [*TAGS, *(["lora"] if facts.is_adapter else [])],
    }


def _intro(facts: CardFacts, config: Mapping[str, JsonValue]) -> str:
    what = "A LoRA adapter for" if facts.is_adapter else "A model that began as"
    base = f"[{facts.base}](https://huggingface.co/{facts.base})" if facts.base else "a model that is not on the hub"
    return (
        f"{what} {base}, trained by on-policy distillation with distillkit: the student sampled its own completions, "
        f"and {_joined(_teachers(config))} scored exactly those tokens."
    )


def _loading(written: str, facts: CardFacts) -> str:
    found = LOADING.search(written)
    shown = found.group(0).strip() if found else "The files are as `from_pretrained` takes them."
    for local in ("path/to/adapter", "path/to/model"):
        shown = shown.replace(local, facts.repo)
    return re.sub(r'"path/to/[^"]*"', f'"{facts.base}"', shown) if facts.base else shown


def _results(verdict: Verdict) -> Iterator[str]:
    yield "```\n" + "\n".join(verdict_lines(verdict)) + "\n```"
    routes = verdict.routes or ((verdict.overall,) if verdict.overall else ())
    rows = [(route.shown or "all", route.rows, change) for route in routes for change in route.changes]
    if rows:
        head = ["| route | rows | measure | before | after | |", "|---|---|---|---|---|---|"]
        yield "\n".join([*head, *(_line(route, count, change) for route, count, change in rows)])
        yield NOT_A_BENCHMARK


def _line(route: str, rows: int, change: Change) -> str:
    before, after = change.measure.text(change.before), change.measure.text(change.after)
    cells = (route.replace("|", "\\|"), str(rows), change.label, before, after, OUTCOMES[change.outcome])
    return f"| {' | '.join(cells)} |"


def _settings(config: Mapping[str, JsonValue], summary: Mapping[str, JsonValue]) -> Iterator[tuple[str, object]]:
    data, loss, sampling = (_section(config, name) for name in ("data", "loss", "sampling"))
    provenance = _section(summary, "provenance")
    yield "teachers", _joined(_teachers(config))
    yield "data", _data_name(data.get("path"))
    yield "loss", f"`{loss.get('name')}`"
    yield "steps, rows, completions", f"{summary.get('steps')}, {summary.get('rows')}, {summary.get('completions')}"
    for name, value in _section(summary, "settings").items():
        if value is not None:
            yield name.replace("_", " "), value
    yield "temperature", sampling.get("temperature")
    yield "seed", config.get("seed")
    versions = _section(provenance, "versions")
    yield "versions", ", ".join(f"{name} {version}" for name, version in versions.items())


def _section(values: Mapping[str, JsonValue], name: str) -> dict[str, JsonValue]:
    found = values.get(name)
    return found if isinstance(found, dict) else {}


def _teachers(config: Mapping[str, JsonValue]) -> list[str]:
    found = config.get("teachers")
    teachers = [each for each in found if isinstance(each, dict)] if isinstance(found, list) else []
    names = [public_name(str(each.get("model"))) for each in teachers]
    return list(dict.fromkeys(f"`{name}`" for name in names)) or ["a teacher"]


def _data_name(path: JsonValue) -> str:
    """A dataset's name: that of the hub whole, of files no folder."""
    paths: Sequence[JsonValue] = path if isinstance(path, list) else [path]
    names = [str(each) if str(each).startswith("hf://") else Path(str(each)).name for each in paths if each]
    return _joined([f"`{name}`" for name in names]) if names else "rows of a dataset plugin"


def public_name(model: str) -> str:
    """How a model is called for others: by its name on the hub, and in a directory by the last part of its path."""
    return hub_name(model) or Path(model).name or model


def hub_name(model: str) -> str | None:
    """A model's name on the hub; None: it has none, or is a directory here.

    A Tinker server may list a model at several lengths, as `org/name:peft:131072`: its name ends at the colon.
    """
    name = model.partition(":")[0]
    return name if is_hub_name(name) else None


def is_hub_name(model: str) -> bool:
    """Whether it is written as a name on the hub, `org/name`, and is no directory here."""
    return re.fullmatch(r"[A-Za-z0-9][\w.-]*/[\w.-]+", model) is not None and not Path(model).is_dir()


def _joined(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
