"""`distillkit diagnose`: figures in tables and five sentences for people, all figures as JSON for programs."""

import json
import textwrap
from collections.abc import Iterator
from dataclasses import asdict

from rich.console import Console
from rich.table import Table
from rich.text import Text

from distillkit.data.counted import counted
from distillkit.diagnosis.route_figures import LARGE, Diagnosis, LengthFigures, RouteFigures
from distillkit.diagnosis.scored_tokens import Estimate
from distillkit.diagnosis.sentences import nats, percent, plus_minus, sentences, shown
from distillkit.files.redaction import redact

WIDTH = 80
NAME_WIDTH, TOKEN_WIDTH, BAR_WIDTH = 16, 20, 20
UNKNOWN = "?"
"""What is not known, in a table; null in JSON."""


def as_json(name: str, diagnosis: Diagnosis) -> str:
    """All figures, one key a field of `Diagnosis`, with the run's name and the sentences, of each route too."""
    page = asdict(diagnosis)
    for teacher, figures in page["routes"].items():
        figures["sentences"] = sentences(diagnosis.of(teacher))
    return json.dumps({"name": name, "sentences": sentences(diagnosis), **page}, indent=2, allow_nan=False)


def show_diagnosis(name: str, diagnosis: Diagnosis, console: Console) -> None:
    """Print the tables, and the sentences: of each route too where there are several."""
    figures = diagnosis.overall
    numbers = counted(figures.rows, "row"), counted(figures.completions, "completion"), counted(figures.tokens, "token")
    console.print(f"{name}: {', '.join(numbers)}")
    if diagnosis.lost:
        console.print(f"note: {counted(diagnosis.lost, 'completion')} could not be sampled or scored: in no figure")
    tables = [_gaps(diagnosis), _lengths(diagnosis), _entropies(diagnosis)]
    if figures.topk is not None:
        tables.append(_topk(diagnosis))
    for table in (*tables, _tenths(diagnosis), _tokens(figures)):
        console.print(table)
        console.print()
    if len(diagnosis.routes) > 1:
        for teacher in diagnosis.routes:
            console.print(f"teacher {teacher}")
            show_sentences(diagnosis.of(teacher), console)
        console.print("all teachers")
    show_sentences(diagnosis, console)


def show_sentences(diagnosis: Diagnosis, console: Console) -> None:
    """Print the five sentences, numbered, a line or more each."""
    for number, sentence in enumerate(sentences(diagnosis), start=1):
        console.print(textwrap.fill(f"{number}. {sentence}", WIDTH, subsequent_indent="   ", break_on_hyphens=False))


def _gaps(diagnosis: Diagnosis) -> Table:
    signed = _signed(diagnosis)
    table = _table("nats a token", signed, "mean |gap|", f"|advantage| > {LARGE:g}", f"{signed} at the end", "rows")
    for name, figures in _routes(diagnosis):
        gap = figures.gap
        large = UNKNOWN if gap.large is None else percent(gap.large)
        _row(table, name, _estimate(gap.reverse_kl), _number(gap.absolute), large, _number(gap.end), str(figures.rows))
    return table


def _lengths(diagnosis: Diagnosis) -> Table:
    table = _table("mean, median, cut", "student writes", "teacher writes", "student reads", "teacher reads")
    for name, figures in _routes(diagnosis):
        written = _length(figures.student_lengths), _length(figures.teacher_lengths)
        _row(table, name, *written, _tokens_read(figures.student_prompt), _tokens_read(figures.teacher_prompt))
    return table


def _entropies(diagnosis: Diagnosis) -> Table:
    table = _table("entropy, nats a token", "student", "teacher", "teacher, by top-k", "teacher's cross-entropy")
    for name, figures in _routes(diagnosis):
        entropy = figures.entropy
        topk = UNKNOWN if entropy.teacher_topk is None else f">= {nats(entropy.teacher_topk)} (k={entropy.topk})"
        sides = _estimate(entropy.student), _estimate(entropy.teacher)
        _row(table, name, *sides, topk, _estimate(entropy.teacher_cross))
    return table


def _topk(diagnosis: Diagnosis) -> Table:
    table = _table("top-k of both sides", "k", "in common", "teacher's mass in its own")
    for name, figures in _routes(diagnosis):
        topk = figures.topk
        if topk is not None:
            common = UNKNOWN if topk.overlap is None else percent(topk.overlap)
            _row(table, name, str(topk.k), common, percent(topk.teacher_mass))
    return table


def _tenths(diagnosis: Diagnosis) -> Table:
    table = _table("tenth", "tokens", _signed(diagnosis), "share of |gap|", "")
    table.columns[-1].justify = "left"
    tenths = diagnosis.overall.gap.tenths
    most = max((tenth.share or 0.0 for tenth in tenths), default=0.0)
    for number, tenth in enumerate(tenths, start=1):
        share = UNKNOWN if tenth.share is None else percent(tenth.share)
        bar = "#" * round(BAR_WIDTH * (tenth.share or 0.0) / most) if most else ""
        _row(table, str(number), str(tenth.tokens), _number(tenth.reverse_kl), share, bar)
    return table


def _tokens(figures: RouteFigures) -> Table:
    table = _table("most against", "sampled", f"|advantage| > {LARGE:g}", "summed advantage", "mean advantage")
    for token in figures.gap.tokens:
        text = json.dumps(token.text, ensure_ascii=False)
        name = shown(token, text if len(text) <= TOKEN_WIDTH else f"{text[: TOKEN_WIDTH - 3]}...")
        _row(table, name, str(token.count), str(token.large), nats(token.advantage), nats(token.mean_advantage))
    return table


def _signed(diagnosis: Diagnosis) -> str:
    """What the mean of sampling less teacher is called."""
    return "reverse KL" if diagnosis.untouched else "sampling - teacher"


def _routes(diagnosis: Diagnosis) -> Iterator[tuple[str, RouteFigures]]:
    """Each route by its teacher, shortened; and all together, where there are several."""
    for name, figures in diagnosis.routes.items():
        yield name if len(name) <= NAME_WIDTH else f"{name[: NAME_WIDTH - 3]}...", figures
    if len(diagnosis.routes) > 1:
        yield "all", diagnosis.overall


def _table(first: str, *others: str) -> Table:
    """A table that fits into `WIDTH` columns; its titles wrap where they must."""
    table = Table(box=None, pad_edge=False, width=WIDTH)
    table.add_column(Text(first))
    for title in others:
        table.add_column(Text(title), justify="right")
    return table


def _row(table: Table, *cells: str) -> None:
    """Add cells as they are: a token's text is no markup, and may hold a secret."""
    table.add_row(*(Text(redact(cell)) for cell in cells))


def _estimate(estimate: Estimate | None) -> str:
    return UNKNOWN if estimate is None else plus_minus(estimate)


def _number(value: float | None) -> str:
    return UNKNOWN if value is None else nats(value)


def _length(lengths: LengthFigures | None) -> str:
    if lengths is None:
        return UNKNOWN
    return f"{lengths.mean:.0f}, {lengths.median:.0f}, {percent(lengths.truncated)}"


def _tokens_read(mean: float | None) -> str:
    return UNKNOWN if mean is None else f"{mean:.0f}"
