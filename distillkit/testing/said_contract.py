"""What plugins owe the engine in what they say of themselves: it can be written down, compared and counted with."""

import json
import math
from collections.abc import Collection, Mapping

import numpy as np

from distillkit.context import RunContext
from distillkit.positions import READS
from distillkit.roles.capabilities import meant_by
from distillkit.roles.loss import Loss
from distillkit.roles.plugin import Plugin
from distillkit.roles.sampler import Sampler
from distillkit.roles.scorer import Scorer
from distillkit.roles.student import Student
from distillkit.roles.weighting import Weighting
from distillkit.testing.builders import require
from distillkit.testing.held_to import given, held_to


def check_kept(plugin: Plugin) -> None:
    """What it says of itself while it is open can be written down."""
    with held_to(plugin, "state"):
        json.dumps(dict(given(plugin, "state", plugin.state(), Mapping)))
    with held_to(plugin, "tensors"):
        arrays = given(plugin, "tensors", plugin.tensors(), Mapping)
        named_arrays = all(isinstance(name, str) and isinstance(array, np.ndarray) for name, array in arrays.items())
        require(named_arrays, plugin, "has `tensors` that are no arrays by name")
    with held_to(plugin, "provenance"):
        json.dumps(dict(given(plugin, "provenance", plugin.provenance(), Mapping)), allow_nan=False)
    with held_to(plugin, "fingerprint"):
        known = given(plugin, "fingerprint", plugin.fingerprint(), Mapping)
        texts = all(isinstance(text, str) for pair in known.items() for text in pair)
        require(texts and known == plugin.fingerprint(), plugin, "has a fingerprint that is not of texts, or changes")
    if isinstance(plugin, Sampler | Scorer):
        check_metrics(plugin)


def check_metrics(plugin: Sampler | Scorer) -> None:
    """What it measured is finite numbers by name."""
    with held_to(plugin, "metrics"):
        found = given(plugin, "metrics", plugin.metrics(), Mapping)
        finite = all(isinstance(name, str) and math.isfinite(value) for name, value in found.items())
        require(finite, plugin, f"reports metrics that are no finite numbers: {dict(found)}")


def check_length(plugin: Student | Scorer, context: RunContext) -> None:
    """The longest prompt plus completion is a number of tokens, where it is known."""
    with held_to(plugin, "context_length"):
        length = plugin.context_length(context)
        known = length is None or (isinstance(length, int) and length > 0)
        require(known, plugin, f"gives {length!r} as `context_length`, which is no number of tokens")


def check_capabilities(scorer: Scorer) -> None:
    """Limits by open names."""
    with held_to(scorer, "capabilities"):
        offered = given(scorer, "capabilities", scorer.capabilities(), Mapping)
        limits = all(isinstance(name, str) and (most is None or most > 0) for name, most in offered.items())
        require(limits, scorer, f"has `capabilities` that are no limits by name: {dict(offered)}")


def check_loss_options(loss: Loss) -> None:
    """What it says of itself: JSON values by name, numbers by capability, and code of its own that can be called."""
    with held_to(loss, "options"):
        options = given(loss, "options", loss.options(), Mapping)
        require(_is_json(options), loss, f"has `options` that are no JSON values by name: {dict(options)}")
    with held_to(loss, "options_without_effect"):
        names = given(loss, "options_without_effect", loss.options_without_effect(), Collection)
        require(not isinstance(names, str), loss, "has `options_without_effect` that are one text, not names")
    with held_to(loss, "reads"):
        reads = given(loss, "reads", loss.reads(), Collection)
        unknown = sorted(map(str, set(reads) - READS.keys()))
        require(not isinstance(reads, str) and not unknown, loss, f"`reads` {unknown}; there are {sorted(READS)}")
    with held_to(loss, "max_teachers"):
        most = loss.max_teachers()
        require(most is None or (type(most) is int and most > 0), loss, f"has `max_teachers` {most!r}, no number")
    with held_to(loss, "references"):
        given(loss, "references", loss.references(), tuple)
    with held_to(loss, "token_loss"):
        function = loss.token_loss()
        require(function is None or callable(function), loss, f"has a `token_loss` that is {function!r}, no function")
    check_needs(loss)


def check_needs(plugin: Loss | Weighting) -> None:
    """Amounts by open names, of scorers and of the sampler."""
    for method in ("needs", "sampler_needs"):
        with held_to(plugin, method):
            needs = given(plugin, method, getattr(plugin, method)(), Mapping)
            amounts = all(isinstance(name, str) and type(least) is int and least > 0 for name, least in needs.items())
            require(amounts, plugin, f"has `{method}` that are no amounts by name: {dict(needs)}")
    meant = meant_by(plugin.needs())
    require(not meant, plugin, f"has `needs` {sorted(plugin.needs())}{meant} A name of your own must be less like it")


def _is_json(options: Mapping[str, object]) -> bool:
    try:
        return isinstance(json.loads(json.dumps(options)), dict) and all(isinstance(name, str) for name in options)
    except (TypeError, ValueError):
        return False
