"""`distillkit check`: what a run would do and take, and one prompt of each side and route as it will be read."""

from collections.abc import Sequence

from rich.console import Console
from rich.table import Table

from distillkit.arrays import IntArray
from distillkit.cli.memory_rows import memory_rows
from distillkit.cli.reporting import Terminal
from distillkit.config.row_format_config import SortConfig
from distillkit.config.sections import PricesConfig
from distillkit.data.counted import counted
from distillkit.data.indexed_rows import IndexedRows
from distillkit.data.render import PromptSide
from distillkit.data.row_format.expressions import SortKey
from distillkit.events import Notice
from distillkit.files.printable import printable
from distillkit.files.strict_json import shortened
from distillkit.metrics import route_shown
from distillkit.preflight.check_result import first_of_each_route
from distillkit.preflight.kill_cost import kill_cost
from distillkit.preflight.objective import objective
from distillkit.preflight.prepared_run import PreparedRun
from distillkit.preflight.route_shares import share_row
from distillkit.run_plan import Plan
from distillkit.types import Prompts


def show_prepared_run(prepared: PreparedRun, notices: Sequence[Notice], console: Terminal) -> None:
    """Print everything that is known before the run, but the row that is shown before models are asked.

    `notices` are what plugins said.
    """
    _show_plugins(prepared, console)
    _show_plan(prepared, console)
    for label, prompts in first_of_each_route(prepared).items():
        _show_prompts(prepared, label, prompts, console)
    for notice in (*notices, *prepared.notices):
        console.say(notice.shown)


def _show_plugins(prepared: PreparedRun, console: Terminal) -> None:
    for report in prepared.reports.values():
        for note in report.notes:  # each names its plugin
            console.say(note)


def _show_plan(prepared: PreparedRun, console: Console) -> None:
    plan, pipeline = prepared.plan, prepared.pipeline
    table = Table(box=None, show_header=False)
    routes = ", ".join(f"{teacher.shown} {pipeline.rows_of[teacher.name]:,}" for teacher in pipeline.routed_to)
    table.add_row("rows", f"{len(prepared.dataset):,} ({routes}); held out: {plan.eval_rows:,}")
    if prepared.order.shares:
        table.add_row("shares", share_row(prepared.order, plan.rows, pipeline.routed_to))
    table.add_row("loss", objective(prepared.config, pipeline))
    whole = f"{counted(plan.rows, 'row')} and {counted(plan.completions, 'completion')} in all"
    table.add_row("steps", f"{plan.steps:,}, {whole}")
    if prepared.config.data.sort is not None:
        table.add_row("order", _order(prepared.dataset, prepared.config.data.sort))
    table.add_row(
        "longest prompt", f"{plan.longest_prompt:,} tokens (student), {plan.longest_teacher_prompt:,} (teachers)"
    )
    table.add_row("tokens sampled", f"{plan.sample_tokens:,} at most")
    table.add_row("tokens scored", f"{plan.score_tokens:,} at most, teachers' prompts counted in")
    table.add_row("tokens trained", f"{plan.train_tokens:,} at most, prompts counted in")
    if plan.evaluations:
        table.add_row("evaluations", _evaluations(plan))
    table.add_row("a kill costs", kill_cost(prepared.config.train, plan.steps))
    if prepared.config.prices is not None:
        total_cost, left_out = cost(plan, prepared.config.prices)
        table.add_row("cost", total_cost)
        table.add_row("not in it", left_out)
    for label, text in memory_rows(prepared.memory.fits):
        table.add_row(label, text)
    console.print(table)


def _evaluations(plan: Plan) -> str:
    """How many, and their tokens; those that evaluators ask for besides stand apart, since they have other prices."""
    parts = [f"{plan.eval_sample_tokens:,} tokens sampled", f"{plan.eval_score_tokens:,} scored"]
    if plan.eval_teacher_tokens:
        parts.append(f"{plan.eval_teacher_tokens:,} that teachers write for evaluators")
    if plan.eval_student_score_tokens:
        parts.append(f"{plan.eval_student_score_tokens:,} of theirs that the student scores")
    return f"{plan.evaluations}; besides, {' and '.join([', '.join(parts[:-1]), parts[-1]])} at most"


def _order(rows: IndexedRows, sort: SortConfig) -> str:
    """By what rows are sorted, and the keys of the first and the last."""
    key, order = SortKey(sort.by), rows.order(0, 0, shuffle=False)
    first, last = (_key(key.of(next(rows.columns([int(order[at])])))) for at in (0, -1))
    return f"each epoch by {sort.by}{', descending' if sort.descending else ''}: from {first} to {last}"


def _key(key: float | str) -> str:
    return shortened(repr(key), 40) if isinstance(key, str) else f"{key:.12g}"


def cost(plan: Plan, prices: PricesConfig) -> tuple[str, str]:
    """What the tokens of a run cost at most, evaluations counted in; and what is not counted."""
    parts = {
        "sampling": (plan.sample_tokens + plan.eval_sample_tokens, prices.sample_per_million_tokens),
        "scoring": (plan.score_tokens + plan.eval_score_tokens, prices.score_per_million_tokens),
        "training": (plan.train_tokens, prices.train_per_million_tokens),
    }
    costs = {name: tokens / 1e6 * price for name, (tokens, price) in parts.items() if price is not None}
    total = f"{sum(costs.values()):,.2f} {prices.currency} at most by your prices"
    counted = ", ".join([total, *(f"{name} {value:,.2f}" for name, value in costs.items())])
    left_out = [f"{name} (no price)" for name in parts if name not in costs]
    if plan.eval_teacher_tokens or plan.eval_student_score_tokens:
        tokens = plan.eval_teacher_tokens + plan.eval_student_score_tokens
        left_out.append(f"{tokens:,} tokens that evaluators have teachers write and the student score")
    left_out.append("what is paid by the hour")
    return counted, ", ".join(left_out)


def _show_prompts(prepared: PreparedRun, label: str, prompts: Prompts, console: Console) -> None:
    renderer, teachers = prepared.renderer, prepared.pipeline.teachers
    console.rule(f"route {route_shown(label, teachers)}", align="left")
    console.print(f"row {prompts.row.row_id}: {prompts.row.place}")
    console.print(f"the student reads ({counted(len(prompts.student), 'token')}):")
    console.print(_read(renderer.student, prompts.student), style="cyan")
    for name, ids in prompts.teachers.items():
        console.print(f"teacher {route_shown(name, teachers)!r} reads ({counted(len(ids), 'token')}):")
        console.print(_read(renderer.teachers[name], ids), style="green")


def _read(side: PromptSide, ids: IntArray) -> str:
    return printable(side.tokenizer.show(ids.tolist()), keep="\n\t")
