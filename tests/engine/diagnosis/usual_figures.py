"""A diagnosis with other figures of its gap, its entropy or its lengths."""

from dataclasses import replace

from distillkit.diagnosis.route_figures import Diagnosis, LengthFigures


def gap(diagnosis: Diagnosis, **over: object) -> Diagnosis:
    figures = diagnosis.overall
    return replace(diagnosis, overall=replace(figures, gap=replace(figures.gap, **over)))  # type: ignore[arg-type]


def entropy(diagnosis: Diagnosis, **over: object) -> Diagnosis:
    figures = diagnosis.overall
    return replace(diagnosis, overall=replace(figures, entropy=replace(figures.entropy, **over)))  # type: ignore[arg-type]


def lengths(diagnosis: Diagnosis, student: LengthFigures | None, teacher: LengthFigures | None) -> Diagnosis:
    return replace(diagnosis, overall=replace(diagnosis.overall, student_lengths=student, teacher_lengths=teacher))
