"""What is pushed, and how SGLang takes it: a LoRA as an adapter of a new name, all weights in place."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from pydantic import JsonValue

from distillkit_builtin.pushed.adapter_push import AdapterPush
from distillkit_builtin.pushed.weight_push import LoadError, PushedVersion, WeightPush
from distillkit_builtin.remote.results import RefusedError

LORA_HOW = (
    "start SGLang with --enable-lora --max-lora-rank N (at least the student's lora_rank) --lora-target-modules all, "
    "and not with several data-parallel replicas"
)
WEIGHTS_HOW = (
    "start SGLang without quantized or otherwise changed weights; it must see that directory "
    "(student.sampler.server_run_dir says where)"
)
REFUSED = 400
ALREADY_LOADED = "already loaded"
"""In what SGLang responds to an adapter's name that it has."""
NO_SUCH_ADAPTER = "does not exist"
"""In what it responds to the unloading of one that it has not."""
UNSEEN = ("Repo id must be in the form", "No such file or directory", "Cannot find any model weights")
"""In what it responds where it finds no weights at the path that it is given, which it then takes for a hub's name."""


def unseen(problem: LoadError) -> bool:
    """Whether SGLang does not find what it was to load."""
    return isinstance(problem, RefusedError) and any(text in problem.message for text in UNSEEN)


class SGLangAdapterPush(AdapterPush):
    """A LoRA, pushed by `/load_lora_adapter`.

    A name is used once, and a completion of it is no proof by itself that it is loaded: SGLang answers for an adapter
    that was unloaded, or had to make room for others, by loading it again from the path that it had.
    """

    @property
    def how_to_start(self) -> str:
        """How to start SGLang with runtime adapters, for messages."""
        return LORA_HOW

    async def load(self, root: str, new: PushedVersion) -> None:
        """Under a new name a version: SGLang refuses one that it has."""
        adapter: dict[str, JsonValue] = {"lora_name": new.label, "lora_path": new.path}
        try:
            await self.client.post_to(root, "/load_lora_adapter", adapter)
        except RefusedError as error:
            if error.status != REFUSED or ALREADY_LOADED not in error.message:
                raise  # else an attempt whose response was lost did it: nobody else uses our names

    async def unload(self, root: str, old: PushedVersion) -> None:
        """Unload it; a replica that was restarted has it no more."""
        try:
            await self.client.post_to(root, "/unload_lora_adapter", {"lora_name": old.label})
        except RefusedError as error:
            if error.status != REFUSED or NO_SUCH_ADAPTER not in error.message:
                raise

    def is_unseen(self, problem: LoadError) -> bool:
        """As `unseen`."""
        return unseen(problem)


@dataclass(slots=True)
class SGLangWeightsPush(WeightPush):
    """All weights: `/update_weights_from_disk` replaces them while nothing is computed, and empties the prefix cache.

    What is under way ends first, and what comes meanwhile waits (SGLang's `model_update_lock`), so that no completion
    is of two versions. The label changes with the weights, in one request. A load that failed may have replaced a part
    of them under the label of before: until another one has succeeded, that replica's label proves nothing.
    """

    _unsure: set[str] = field(default_factory=set)

    @property
    def model(self) -> str:
        """The base model's name: its weights are replaced."""
        return self.base_model

    @property
    def cache_salt(self) -> str:
        """The version's label: no prefix of other weights is used, whatever is in the cache."""
        return self.served.label

    @property
    def how_to_start(self) -> str:
        """How to start SGLang so that weights can be replaced, for messages."""
        return WEIGHTS_HOW

    async def load(self, root: str, new: PushedVersion) -> None:
        """Replace the weights."""
        weights: Mapping[str, JsonValue] = {
            "model_path": new.path,
            "weight_version": new.label,
            "flush_cache": True,
            "abort_all_requests": False,
        }
        try:
            await self.client.post_to(root, "/update_weights_from_disk", weights)
        except BaseException:
            self._unsure.add(root)
            raise
        self._unsure.discard(root)

    async def unload(self, root: str, old: PushedVersion) -> None:
        """Nothing: weights are replaced, and a replica with others than the current ones is given those again."""

    def is_unseen(self, problem: LoadError) -> bool:
        """As `unseen`."""
        return unseen(problem)

    def sampled_it_all(self, root: str, versions: frozenset[str]) -> bool:
        """Whether all weights that computed an answer have the current version's label."""
        return versions == {self.served.label}

    async def holds(self, root: str) -> bool:
        """Whether the last load succeeded; answers say which it was themselves."""
        return root not in self._unsure
