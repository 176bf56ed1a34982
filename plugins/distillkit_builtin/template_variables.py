"""The names that a chat template reads: an option that it does not read does nothing."""

import re
from functools import lru_cache

GENERATION_TAG = re.compile(r"\{%[-+]?\s*(end)?generation\s*[-+]?%\}")
"""Of transformers, which marks by it what the assistant wrote; Jinja itself does not know it."""


@lru_cache
def template_variables(templates: tuple[str, ...]) -> frozenset[str]:
    """What any of a model's templates reads and does not set itself."""
    from jinja2 import Environment, meta

    environment = Environment(autoescape=True, extensions=["jinja2.ext.loopcontrols"])
    trees = (environment.parse(GENERATION_TAG.sub("", template)) for template in templates)
    return frozenset().union(*(meta.find_undeclared_variables(tree) for tree in trees))
