"""Measure one family: two models of it are written, and a LoRA and all weights are trained."""

from pathlib import Path

from families.catalogue import FAMILIES
from families.measurement import Measurement
from families.tiny import write_family
from families.trial import Subjects, try_out
from families.trial_config import MODES, write_rows


def measure(name: str, folder: Path) -> Measurement:
    """Of the family of that name in the catalogue; everything is written into `folder`, which exists."""
    family = FAMILIES[name]
    student, teacher = (
        write_family(family, folder / side, seed=seed) for seed, side in enumerate(("model", "teacher"))
    )
    write_rows(folder)
    subjects = Subjects.load(folder, student, teacher)
    return Measurement(name, family.kind, {mode: try_out(subjects, mode) for mode in MODES})
