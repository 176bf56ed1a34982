"""The pages of the public names: values, events, what plugins are given, errors, functions, the kit for tests."""

import ast
import re
import textwrap
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache

from reference_source import Field, clean, definition, docstring, fields, functions, joined, signature

import distillkit
import distillkit.testing
from distillkit.roles.by_name import ROLES


@dataclass(frozen=True)
class Topic:
    """A page of public names."""

    title: str
    introduction: str
    names: str
    """In the order in which they are described."""


TOPICS: Mapping[str, Topic] = {
    "values.md": Topic(
        "Values",
        """
        What travels through a step, in the order of the journey. Each value is frozen with all that it holds: mappings
        and lists are read-only, arrays too. It is checked in its constructor, which raises `AlignmentError` for arrays
        that are not of the same tokens. Token ids are int64 arrays, logprobs float32 arrays in natural log (nats); `P`
        is the length of a prompt in tokens, `R` that of a response, `K` a number of ids at each position. To change a
        value make another: `dataclasses.replace(value, field=...)`.
        """,
        """
        RowFile RawRow UnreadableRow MAX_ROW_BYTES Message Messages Row Teacher Route ChatPrompts RoutedRow Prompts
        SampleKey SamplingParams SampleRequest Rollout
        FinishReason ScoreRequest Score ScoredRollout TeacherPrompt Datum Batch Positions READS TokenLoss
        NextTokenDivergence StepResult Weights Failure
        """,
    ),
    "events.md": Topic(
        "Events",
        """
        What a [sink](sink.md) gets by `emit`, one frozen record an occasion, in the order in which they come:
        `PhaseStarted` for each plugin that is loaded; `RunStarted` once; `Evaluated` before training, where there are
        held-out rows and evaluators; for each step `PhaseStarted` and `PhaseProgress` many times, then `StepFinished`,
        then `Evaluated` every `train.eval_every` steps; `Evaluated` after training; `RunFinished` once, however the run
        ends. A `Notice` may come at any time. Of a run that fails while its plugins are opened, a sink gets
        `PhaseStarted`, notices and `RunFinished` alone.
        """,
        "Event RunStarted Plan PhaseStarted Activity PhaseProgress StepFinished Evaluated EvalStage EvalResult "
        "RowValue Measure PolicyFigures Notice NoticeKind RunFinished",
    ),
    "context.md": Topic(
        "What plugins are given, and give back",
        """
        `check` and `open` of every plugin get a `RunContext`; `evaluate` of an evaluator gets an `EvalContext`.
        """,
        """
        RunContext CheckReport MemoryReport MemoryUse MemoryPart DeviceMemory PlannedDevice Leftover PENDING_CLEANUP
        Rank EvalContext EvalNeed EvalRequests TokenScorer ScoresAnew
        ComputesLogprobs MeasuresRouteGradients Tokenizer TurnEnds RendersMany HasTemplateVariables
        """,
    ),
    "running.md": Topic(
        "Running from Python",
        "The keys of a config are on [their page](config.md).",
        """
        run arun check write_report RunConfig RunResult Verdict RouteVerdict Change DecayWarning CheckResult ProbeReport
        Registry hookimpl
        """,
    ),
    "errors.md": Topic(
        "Errors",
        """
        All are children of `DistillkitError`. The command line turns `InputError` and its children into exit code 2,
        all others into exit code 1; `distillkit.run` raises them.
        """,
        """
        DistillkitError InputError ConfigError PluginNotFoundError DataError RowError MissingExtraError PluginError
        AlignmentError BadStepError RunFailedError suggest
        """,
    ),
    "helpers.md": Topic(
        "Functions for plugins",
        "What the built-in plugins use too: arrays, numbers of an evaluation, tokenizers, seeds, secrets, files.",
        """
        Array IntArray FloatArray BoolArray LOGPROB_ROUNDING NO_ID token_ids logprob_array frozen_array frozen
        FrozenDict FrozenList reverse_kl mean_over_tokens eval_metrics
        route_slug route_shown route_order finite token_at parse_messages parse_template_options
        too_long require_compatible
        first_difference tokenizer_fingerprint unknown_id vocabulary_size derive_seed keep_secret redact replacing
        write_json shortened significant
        """,
    ),
    "testing.md": Topic(
        "Testing plugins",
        """
        `from distillkit.testing import ...`: fakes without torch, values that are made up, `check_plugin`, and
        `prove_loss`, which alone needs torch. Needs no pytest and no model.
        """,
        " ".join(distillkit.testing.__all__),
    ),
}
"""By file name."""


@lru_cache
def places() -> Mapping[str, str]:
    """Public name to page and heading, as a link in `docs/reference` has it."""
    found = {base.__name__: f"{role}.md" for role, base in ROLES.items()} | {"Plugin": "plugin.md#every-plugin"}
    for page, topic in TOPICS.items():
        if page != "testing.md":
            found |= {name: f"{page}#{name.lower()}" for name in topic.names.split()}
    return found


def topic_page(page: str) -> str:
    """The values, events, errors or functions of one page of `TOPICS`."""
    topic = TOPICS[page]
    lines = [f"# {topic.title}", "", textwrap.fill(" ".join(topic.introduction.split()), 120), ""]
    for name in topic.names.split():
        node = definition(name, distillkit.testing if page == "testing.md" else distillkit)
        lines += [f"## {name}", ""]
        if isinstance(node, ast.ClassDef):
            lines += class_entry(node, page)
        else:
            is_function = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
            lines += [f"`{signature(node) if is_function else ast.unparse(node)}`", "", docstring(node), ""]
    return joined(lines)


def class_entry(node: ast.ClassDef, page: str) -> list[str]:
    """A class: what it is, its fields, and what else it has."""
    bases = [ast.unparse(base) for base in node.bases]
    lines = [f"(`{', '.join(bases)}`) {docstring(node)}" if page == "errors.md" and bases else docstring(node), ""]
    if node.name == "RunConfig":
        return [*lines, "Its fields are the [config keys](config.md).", ""]
    rows = [row(field, page) for field in fields(node) if not field.is_class_variable or "Protocol" in bases]
    if rows:
        lines += ["| field | type | default | meaning |", "|---|---|---|---|", *rows, ""]
    for each in functions(node):
        is_class_method = any(ast.unparse(decorator) == "classmethod" for decorator in each.decorator_list)
        called = f"{node.name}.{signature(each)}" if is_class_method else signature(each)
        called = called.replace("__init__", node.name).removesuffix(" -> None") if each.name == "__init__" else called
        lines += [f"- `{called}`: {textwrap.indent(docstring(each), '  ').lstrip()}"]
    return [*lines, ""]


def index_page() -> str:
    """Where every public name is described."""
    lines = ["# Reference", "", "Generated from the code.", "", "- [Config keys](config.md)"]
    lines += [f"- Role [{role}]({role}.md): {clean(base).partition('.')[0]}" for role, base in ROLES.items()]
    lines += ["- [What every plugin has](plugin.md)"]
    lines += ["- [What `distillkit diagnose --json` prints](diagnosis.md)"]
    lines += [f"- [{topic.title}]({page})" for page, topic in TOPICS.items()]
    testing = {name: f"testing.md#{name.lower()}" for name in distillkit.testing.__all__}
    lines += ["", "## `from distillkit import ...`", "", listed(places()), ""]
    return joined([*lines, "## `from distillkit.testing import ...`", "", listed(testing)])


def listed(where: Mapping[str, str]) -> str:
    """Names with their places, in the order of the alphabet."""
    links = [f"[{name}]({where[name]})" for name in sorted(where, key=str.casefold)]
    return textwrap.fill(", ".join(links), 120, break_on_hyphens=False, break_long_words=False)


def row(field: Field, page: str = "") -> str:
    """A line of a table; a field without a docstring has the meaning of its type."""
    meaning = field.meaning
    if not meaning and field.kind in places():
        meaning = docstring(definition(field.kind)).partition("\n")[0]
    default = field.default if field.default == "required" else f"`{field.default}`"
    return f"| {' | '.join(map(cell, [f'`{field.name}`', with_links(field.kind, page), default, meaning]))} |"


def with_links(kind: str, page: str) -> str:
    """A type as the source has it, with each public name in it as a link."""

    def link(found: re.Match[str]) -> str:
        place = places().get(found[0])
        return found[0] if place is None else f"[{found[0]}]({place.removeprefix(page)})"

    return re.sub(r"\b[A-Z]\w+\b", link, kind.replace('"', "") if "Literal" not in kind else kind)


def cell(text: str) -> str:
    """Text that does not end a table's cell."""
    return text.replace("|", "\\|")
