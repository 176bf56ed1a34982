"""Figures of a run of which nothing special is to be said."""

import pytest

from distillkit.diagnosis.figures_of import diagnosis_of
from distillkit.diagnosis.route_figures import Diagnosis
from engine.diagnosis.completions import completion, measured, written


@pytest.fixture
def usual() -> Diagnosis:
    """Two rows with a gap of about half a nat; figures are laid over it."""
    scored = [completion([-0.4, -0.6, -0.5] * 3, line) for line in (1, 2)]
    return diagnosis_of(measured(scored, own={"teacher": written([9, 9])}), ["teacher"])
