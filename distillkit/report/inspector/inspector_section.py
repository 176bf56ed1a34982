"""The inspector as a section of a report: what is pushed most, and completions token by token."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from markupsafe import Markup

from distillkit.data.counted import counted
from distillkit.report.html_templates import rendered
from distillkit.report.inspector.choose import in_order_of_choice
from distillkit.report.inspector.encode import Encoder
from distillkit.report.inspector.pushes import FIRST, RoutePushes, TokenPush, examples_of
from distillkit.report.inspector.recorded import Place, Recorded, read_again
from distillkit.report.inspector.samples_reader import SamplesReader
from distillkit.report.route_names import RouteNames, route_names
from distillkit.report.run_record import RunRecord
from distillkit.report.section import ReportSection
from distillkit.significant import significant

ID = "tokens"
TITLE = "Token inspector"
ROOM = 3_500_000
"""Bytes of a page for completions, unless there is less."""
STYLES = ("inspector.css",)
SCRIPTS = ("inspector-data.js", "inspector-tokens.js", "inspector-prompts.js", "inspector.js")
REFUSED_IN_A_ROW = 50
"""Completions that did not fit, after which no further ones are tried."""
SIGNS = str.maketrans({"\n": "↵", "\t": "⇥", "\u00a0": "⍽", "\u202f": "⍽"})
SHORT = 40
"""Characters of a context, and of a token in a sentence."""


@dataclass(frozen=True, slots=True)
class ShownExample:
    """An example of a token, with a link where its completion is in the page."""

    href: str
    before: str
    token: str
    after: str
    push: str


@dataclass(frozen=True, slots=True)
class ShownToken:
    """A token in the table of those that are pushed most."""

    text: str
    total: str
    each: str
    count: int
    example: ShownExample | None


def inspector_section(
    runs: Sequence[RunRecord], room: int = ROOM, reader: SamplesReader | None = None
) -> ReportSection:
    """The inspector of these runs, in at most about `room` bytes of data; `reader`: one that has read them before."""
    files = [run.samples for run in runs]
    reader = SamplesReader() if reader is None else reader
    try:
        recorded = reader.read(files)
    except OSError as error:
        return ReportSection(ID, TITLE, Markup("<p>samples.jsonl cannot be read: {}.</p>").format(error.strerror))
    routes = reader.pushes.told()
    called = [route_names(run.config) for run in runs]
    encoder = Encoder([run.name for run in runs], called)
    _fill(encoder, recorded, routes, files, room)
    places = encoder.places()
    html = rendered(
        "inspector.html",
        routes=[_told(each, runs, called, places) for each in routes if not each.is_still],
        still=[called[each.run].shown_label(each.route) for each in routes if each.is_still],
        shown=_shown(encoder, recorded),
        damaged=_damaged(recorded.damaged),
        any=bool(encoder.completions),
        recorded=bool(recorded.places),
        going_on=any(run.status == "running" for run in runs),
        first=FIRST,
    )
    if not encoder.completions:
        return ReportSection(ID, TITLE, html)
    return ReportSection(ID, TITLE, html, encoder.data(), STYLES, SCRIPTS)


def _fill(
    encoder: Encoder, recorded: Recorded, routes: Sequence[RoutePushes], files: Sequence[Path], room: int
) -> None:
    """Put completions into the page, in the order of choice, while there is room."""
    refused = 0
    chosen = in_order_of_choice(recorded.places, examples_of(routes))
    for place, completion in read_again(files, chosen):
        if encoder.add(place, completion, room - encoder.size):
            refused = 0
        elif (refused := refused + 1) > REFUSED_IN_A_ROW:
            break


def _shown(encoder: Encoder, recorded: Recorded) -> str:
    shown, total = len(encoder.completions), len(recorded.places)
    if not total:
        return ""
    if shown == total:
        return f"All {total:,} recorded completions are in this page." if total > 1 else ""
    return (
        f"{shown:,} of {total:,} recorded completions are in this page: whole evaluations first, then training, spread "
        "over routes and steps. The others are in samples.jsonl; the sums count all of them."
    )


def _damaged(count: int) -> str:
    if not count:
        return ""
    return f"{counted(count, 'line')} of samples.jsonl cannot be read (cut off, or damaged), and left out."


def _told(
    pushes: RoutePushes, runs: Sequence[RunRecord], called: Sequence[RouteNames], shown: Mapping[Place, int]
) -> dict[str, object]:
    """What the template says of a route."""
    up, down = pushes.most(1), pushes.most(-1)
    return {
        "run": runs[pushes.run].name if len(runs) > 1 else "",
        "route": called[pushes.run].shown_label(pushes.route),
        "completions": counted(pushes.completions, "completion"),
        "cut": f", {pushes.cut:,} cut at the limit" if pushes.cut else "",
        "at_first": f"{pushes.at_first / pushes.size:.0%}",
        "first_places": f"{pushes.first_places / pushes.places:.0%}",
        "mean_size": significant(pushes.size / pushes.places),
        "down": f"{-pushes.down / pushes.size:.0%}",
        "up_most": visible(up[0].text) if up else None,
        "down_most": visible(down[0].text) if down else None,
        "tables": [("up", [_token(each, shown) for each in up]), ("down", [_token(each, shown) for each in down])],
    }


def _token(token: TokenPush, shown: Mapping[Place, int]) -> ShownToken:
    examples = [example for example in token.best_examples if example.place in shown]
    example = None
    if examples:
        best = examples[0]
        href = f"#completion-{shown[best.place]}-{best.position}"
        example = ShownExample(
            href,
            one_line(best.before[-SHORT:]),
            visible(token.text) if not token.text.strip() else one_line(token.text[:SHORT]),
            one_line(best.after[:SHORT]),
            _signed(best.push),
        )
    each = token.total / token.count
    return ShownToken(visible(token.text), _signed(token.total), _signed(each), token.count, example)


def _signed(value: float) -> str:
    """With the sign that a minus is, as the page's scripts write it."""
    return significant(value, signed=True).replace("-", "\u2212")


def visible(token: str) -> str:
    """A token by itself, on one line; spaces at its ends are seen."""
    if not token:
        return "[part of a character]"
    text = one_line(token[:SHORT])
    start, end = len(text) - len(text.lstrip(" ")), len(text) - len(text.rstrip(" "))
    return "␣" * start + text.strip(" ") + ("␣" * end if start < len(text) else "")


def one_line(text: str) -> str:
    """With signs for line ends, tabs and spaces that do not break, as the page's scripts write them."""
    return text.translate(SIGNS)
