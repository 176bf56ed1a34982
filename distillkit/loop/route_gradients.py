"""How much each route moves the student, and whether routes pull the same way."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import combinations

import numpy as np

from distillkit.errors import PluginError
from distillkit.metrics import route_slug
from distillkit.records import ScoredRollout
from distillkit.roles.attribution import attribute_to, named
from distillkit.roles.student import MeasuresRouteGradients, Student
from distillkit.training_data import Batch
from distillkit.types import Teacher


@dataclass(slots=True)
class RouteGradients:
    """Measures the gradients of a step's routes, every so many steps."""

    student: Student
    every: int
    """0: never."""
    teachers: Sequence[Teacher]
    warn: Callable[[str], None]
    _warned: bool = False

    async def measure(self, step: int, batch: Batch, scored: Sequence[ScoredRollout]) -> dict[str, float]:
        """`teacher_route/<slug>/grad_norm` and `route_cosine/<slug>/<slug>` of the step's (first) optimizer step.

        Raises BadStepError as training on `batch` would.
        """
        if not self.every or step % self.every or not isinstance(self.student, MeasuresRouteGradients):
            return {}
        parts = self._by_route(batch, scored)
        with attribute_to(self.student, "in route_gradients()"):
            products = await self.student.route_gradients([*parts.values()])
        if products is None:
            if not self._warned:
                self.warn(
                    f"train.route_gradients_every: {named(self.student)} cannot measure gradients by route in this run"
                )
            self._warned = True
            return {}
        if np.shape(products) != (len(parts), len(parts)):
            raise PluginError(
                f"{named(self.student)}: route_gradients() gave products of the shape {list(np.shape(products))} for "
                f"{len(parts)} batches"
            )
        return _metrics([*parts], products)

    def _by_route(self, batch: Batch, scored: Sequence[ScoredRollout]) -> dict[str, Batch]:
        """The batch's data of each route, by the slug of the route, in the order of the teachers."""
        places = {teacher.name: place for place, teacher in enumerate(self.teachers)}
        routes = {completion.key: completion.prompts.route for completion in scored}
        labels = {routes[datum.key].label: routes[datum.key] for datum in batch.datums}
        ordered = sorted(labels, key=lambda label: [places[name] for name in labels[label].weights])
        return {
            route_slug(label, self.teachers): replace(
                batch, datums=tuple(datum for datum in batch.datums if routes[datum.key].label == label)
            )
            for label in ordered
        }


def _metrics(slugs: Sequence[str], products: Sequence[Sequence[float]]) -> dict[str, float]:
    """Norms, and cosines where both norms are more than 0."""
    norms = {slug: math.sqrt(max(0.0, float(products[at][at]))) for at, slug in enumerate(slugs)}
    metrics = {f"teacher_route/{slug}/grad_norm": norm for slug, norm in norms.items()}
    for (i, first), (j, second) in combinations(enumerate(slugs), 2):
        if norms[first] and norms[second]:
            cosine = float(products[i][j]) / (norms[first] * norms[second])
            metrics[f"route_cosine/{first}/{second}"] = min(1.0, max(-1.0, cosine))
    return metrics
