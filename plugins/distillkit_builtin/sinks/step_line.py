"""A step as one line, which stays: on a terminal as much of it as fits, elsewhere all."""

from collections.abc import Iterator, Mapping, Sequence

from distillkit import Teacher, significant
from distillkit_builtin.sinks.progress_display import ProgressDisplay, duration

GAP = "  "


def step_line(metrics: Mapping[str, float], display: ProgressDisplay, width: int | None = None) -> str:
    """A step's figures; those that do not fit into `width` characters are left out. `display` stands after the step."""
    return fitting(list(step_parts(metrics, display)), width)


def fitting(parts: Sequence[str], width: int | None) -> str:
    """The parts beside each other, up to the first that does not fit; the first stands in any case."""
    line = parts[0]
    for part in parts[1:]:
        if width is not None and len(line) + len(GAP) + len(part) > width:
            break
        line += GAP + part
    return line


def step_parts(metrics: Mapping[str, float], display: ProgressDisplay) -> Iterator[str]:
    """What matters most comes first: the gap, failures, completions, seconds, teachers; then pace and time left."""
    yield f"step {display.step:>{len(str(display.total))}}/{display.total}"
    if "train/reverse_kl" in metrics:
        yield f"reverse KL {significant(metrics['train/reverse_kl'])}"
    if metrics.get("completions/failed"):
        yield _failed(metrics, display.teachers)
    if "completions/mean_length" in metrics:
        yield f"length {metrics['completions/mean_length']:.0f}"
    if "completions/truncated_fraction" in metrics:
        yield f"ended {1 - metrics['completions/truncated_fraction']:.0%}"
    tokens, seconds = metrics.get("train/active_tokens", 0.0), metrics.get("time/step", 0.0)
    if seconds:
        yield f"{seconds:.1f} s"
    if len(display.teachers) > 1:
        yield GAP.join(_of(teacher, metrics) for teacher in display.teachers)
    if seconds:
        yield f"{tokens / seconds:,.0f} tok/s"
        yield f"ETA {duration(display.seconds_left or 0.0)}"


def _failed(metrics: Mapping[str, float], teachers: Sequence[Teacher]) -> str:
    """How many of the step's completions are lost to it, and of several teachers, which failed to score them."""
    failed = metrics["completions/failed"]
    found = [(teacher.shown, metrics.get(f"teacher_route/{teacher.slug}/failed", 0.0)) for teacher in teachers]
    of = ", ".join(f"{name} {count:.0f}" for name, count in found if count) if len(teachers) > 1 else ""
    asked = failed + metrics.get("completions/trained", 0.0)
    return f"{failed:.0f} of {asked:.0f} FAILED{f' ({of})' if of else ''}"


def _of(teacher: Teacher, metrics: Mapping[str, float]) -> str:
    """A teacher's gap in this step, and of how many completions."""
    kl = metrics.get(f"teacher_route/{teacher.slug}/reverse_kl")
    scored = metrics.get(f"teacher_route/{teacher.slug}/scored", 0.0)
    return f"{teacher.shown} {'-' if kl is None else significant(kl)} ({scored:.0f})"
