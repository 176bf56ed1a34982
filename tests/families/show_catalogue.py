"""A line for each family of the catalogue: how large its tiny model is, what it says, and whether a save keeps it.

`PYTHONPATH=tests python -m families.show_catalogue [NAME ...]` makes all of them, in two minutes; the tests a dozen.
"""

import sys
import tempfile
from pathlib import Path

import torch
import transformers

from families.catalogue import FAMILIES
from families.family import Family
from families.tiny import logit_spread, logits, tiny_model, write_family

SMALLEST, LARGEST = 0.7, 3.0
"""Standard deviation of logits."""


def faults(family: Family, folder: Path) -> tuple[int, float, list[str]]:
    """Parameters, standard deviation of the logits, and what is wrong with the model."""
    model = tiny_model(family)
    write_family(family, folder)
    kind = getattr(transformers, family.class_name)
    again = kind.from_pretrained(folder, attn_implementation="eager", dtype=torch.float32).eval()
    ids = torch.randint(3, 259, (1, 60), generator=torch.Generator().manual_seed(1))
    whole, half, read = logits(model, ids), logits(model, ids[:, :40]), logits(again, ids)
    kept = again.state_dict()
    spread = logit_spread(model, ids)
    wrong = {
        "logits are not finite": not bool(whole.isfinite().all()),
        "logits are too close, or too far apart": not SMALLEST < spread < LARGEST,
        "a token changes what is before it": (whole[:, :40] - half).abs().max() > 1e-4,
        "a save loses weights": any(
            name not in kept or not torch.equal(value, kept[name]) for name, value in model.state_dict().items()
        ),
        "a save changes logits": (whole - read).abs().max() > 1e-5,
    }
    size = sum(parameter.numel() for parameter in model.parameters())
    return size, spread, [fault for fault, present in wrong.items() if present]


def main(names: list[str]) -> int:
    """Prints the table; 1 if anything is wrong with a model."""
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    found = 0
    for name in names or list(FAMILIES):
        with tempfile.TemporaryDirectory() as folder:
            size, spread, wrong = faults(FAMILIES[name], Path(folder))
        found += len(wrong)
        print(
            f"{name:26} {FAMILIES[name].class_name:44} {size // 1000:5} k  {spread:.2f}  {'; '.join(wrong)}", flush=True
        )
    return int(found > 0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
