"""What pushes of a LoRA have in common: an adapter of a new name a version, on a base model that stays as it is."""

from collections.abc import Mapping

from distillkit.errors import InputError, RunFailedError
from distillkit_builtin.pushed.weight_push import LABEL, WeightPush

OWN_SERVER = "start that server anew, and give each run that samples from servers some of its own"


def require_no_pushed_base(plugin: str, base_versions: Mapping[str, str]) -> None:
    """Raise InputError for a server (address to what it calls its base model's weights) whose base is another run's."""
    for root, version in base_versions.items():
        if version.startswith(LABEL):
            raise InputError(
                f"sampler {plugin!r}: {root}: its base model has weights that an earlier run pushed ({version!r}), and "
                f"an adapter on them is no policy of this run; {OWN_SERVER}"
            )


class AdapterPush(WeightPush):
    """A LoRA."""

    @property
    def model(self) -> str:
        """The adapter's name at the servers."""
        return self.served.label

    def sampled_it_all(self, root: str, versions: frozenset[str]) -> bool:
        """True: the answer is of the adapter by its name; the versions are those of the base model below it."""
        for version in versions - {self.base_versions[root]}:
            raise RunFailedError(
                f"{root}: the base model below the adapter {self.served.label} has other weights ({version!r}) than "
                f"when the run started ({self.base_versions[root]!r}); {OWN_SERVER}"
            )
        return True

    async def holds(self, root: str) -> bool:
        """True: a server gives results of an adapter only if it has one of that name."""
        return True
