"""Packages with fast kernels for recurrent layers, which transformers takes where they are installed.

It says of each function by itself that it falls back, on devices too for which there are no kernels: that is taken out
(`requirements.quieten`), and said here once, of the packages that a model on CUDA would use.
"""

import inspect
import re
import sys
from collections.abc import Iterator
from importlib.util import find_spec

from torch import nn

from distillkit_builtin.local.model.causal_lm import CausalLM

DISTRIBUTIONS = {"fla": "flash-linear-attention", "causal_conv1d": "causal-conv1d", "mamba_ssm": "mamba-ssm"}
"""What is installed, by the name of the module."""
USED = re.compile(r"use_kernel_func_from_hub_with_fallback\(\s*\"\w+\",\s*\"(\w+)\"")
"""How a file of transformers says that a function has a kernel in a package."""


def kernel_notes(causal_lm: CausalLM) -> Iterator[str]:
    """What to install, where the model is on CUDA and kernels for its layers are missing."""
    missing = missing_kernel_packages(causal_lm.model) if causal_lm.device.device.type == "cuda" else []
    if missing:
        yield (
            f"{type(causal_lm.model).__name__}: its recurrent layers are computed by plain PyTorch operations, which "
            f"is slower; kernels for them are in other packages: pip install {' '.join(missing)}"
        )


def missing_kernel_packages(model: nn.Module) -> list[str]:
    """The packages, as pip calls them, of which the model's layers would use kernels and which are not installed."""
    files = {type(module).__module__ for module in model.modules()}
    sources = [inspect.getsource(sys.modules[file]) for file in sorted(files) if ".models." in file]
    used = sorted({package for source in sources for package in USED.findall(source)})
    return [DISTRIBUTIONS.get(package, package) for package in used if find_spec(package) is None]
