"""A split of a dataset on the Hugging Face hub, by way of the library `datasets` and its cache."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from distillkit import DataError
from distillkit_builtin.datasets.hf_address import HubAddress
from distillkit_builtin.datasets.hf_errors import library_errors
from distillkit_builtin.datasets.hf_split import OpenedSplit, choose_split, listed, no_such
from distillkit_builtin.file_errors import one_line

if TYPE_CHECKING:
    from datasets import DatasetBuilder

SECONDS = 10.0
"""How long the hub may take to answer the first request."""


def open_on_hub(address: HubAddress, revision: str | None) -> OpenedSplit:
    """The split, downloaded and in the cache, of the commit that `revision` names now (None: the newest one).

    With HF_HUB_OFFLINE=1 it is the one that was cached last. Raises DataError, which says what there is.
    """
    from huggingface_hub.constants import HF_HUB_OFFLINE

    commit = revision if HF_HUB_OFFLINE else find_commit(address.repo, revision)
    builder = _builder(address, commit)
    if HF_HUB_OFFLINE:
        _require_cached(builder, address.repo, revision)
    try:
        builder.download_and_prepare()
        names = list(builder.info.splits or ())
        split = choose_split(names, address.split, str(HubAddress(address.repo, address.config)))
        rows = builder.as_dataset(split=split, in_memory=False)
    except DataError:
        raise
    except library_errors() as error:
        raise DataError(f"{address}: {_reason(error, address.repo)}") from error
    full = HubAddress(address.repo, address.config or _named(builder.config.name), split)
    return OpenedSplit(rows, str(full), builder.hash)


def find_commit(repo: str, revision: str | None) -> str:
    """The hash of a commit. Raises DataError for what the hub does not have or show, or if it does not answer."""
    from huggingface_hub import HfApi
    from huggingface_hub.errors import RepositoryNotFoundError, RevisionNotFoundError

    try:
        commit = HfApi().dataset_info(repo, revision=revision, timeout=SECONDS).sha
    except RepositoryNotFoundError as error:
        raise DataError(f"hf://{repo}: {_reason(error, repo)}") from error
    except RevisionNotFoundError as error:
        raise DataError(no_such("revision", str(revision), f"hf://{repo}", _revisions(repo))) from error
    except library_errors() as error:
        raise DataError(
            f"hf://{repo}: the hub cannot be reached: {one_line(error)}. Where it was read before, HF_HUB_OFFLINE=1 "
            "takes it from the cache; HF_ENDPOINT names another hub"
        ) from error
    if commit is None:
        raise DataError(f"hf://{repo}: the hub does not say of which commit it is")
    return commit


def _builder(address: HubAddress, commit: str | None) -> "DatasetBuilder":
    """What prepares the dataset. It runs no code of the repository: `datasets` of 4.0 and later cannot."""
    from datasets import load_dataset_builder
    from huggingface_hub.constants import HF_HUB_OFFLINE

    # With this prefix it is the hub's, whatever folder here is called the same.
    path = f"hf://datasets/{address.repo}"
    try:
        return load_dataset_builder(path, address.config, revision=commit)
    except library_errors() as error:
        configs = _configs(path, commit) if isinstance(error, ValueError) and not HF_HUB_OFFLINE else ()
        if address.config is not None and configs and address.config not in configs:
            raise DataError(no_such("config", address.config, f"hf://{address.repo}", configs)) from error
        if address.config is None and len(configs) > 1:
            which = f"hf://{address.repo}/{configs[0]}"
            raise DataError(f"hf://{address.repo} has the configs {listed(configs)}; say which: {which}") from error
        raise DataError(f"{address}: {_reason(error, address.repo)}") from error


def _configs(path: str, commit: str | None) -> Sequence[str]:
    from datasets import get_dataset_config_names

    try:
        return [*get_dataset_config_names(path, revision=commit)]
    except library_errors():
        return ()  # then the first error says why


def _revisions(repo: str) -> Sequence[str]:
    from huggingface_hub import HfApi

    try:
        refs = HfApi().list_repo_refs(repo, repo_type="dataset")
    except library_errors():
        return ("main",)
    return [ref.name for ref in (*refs.branches, *refs.tags)]


def _require_cached(builder: "DatasetBuilder", repo: str, revision: str | None) -> None:
    """Offline `datasets` takes what it has, of whichever revision; a name may even be one of its file formats."""
    if builder.repo_id != repo:
        raise DataError(f"hf://{repo}: HF_HUB_OFFLINE=1, and it is not in the cache")
    if revision is not None and builder.hash != revision:
        raise DataError(
            f"hf://{repo}: HF_HUB_OFFLINE=1, and what was cached last is commit {builder.hash}, which is not known to "
            f"be revision {revision!r}. Give that commit as `revision`, or unset HF_HUB_OFFLINE"
        )


def _named(config: str) -> str | None:
    """The name that a config has, where `datasets` has not made one up from what it is of."""
    return None if config.startswith("default") else config


def _reason(error: Exception, repo: str) -> str:
    """Why it cannot be had, and what to do."""
    from datasets.exceptions import DataFilesNotFoundError, DatasetGenerationError
    from huggingface_hub.errors import GatedRepoError, OfflineModeIsEnabled, RepositoryNotFoundError

    if isinstance(error, DatasetGenerationError) and isinstance(error.__cause__, Exception):
        return f"its files are no rows of one kind: {one_line(error.__cause__)}"
    said = one_line(error)
    if isinstance(error, GatedRepoError) or "gated dataset" in said:
        return (
            f"it is gated: ask for access at https://huggingface.co/datasets/{repo}, then set HF_TOKEN (or `hf auth "
            "login`) of the account that has it"
        )
    if isinstance(error, RepositoryNotFoundError):
        return (
            "the hub has no dataset of this name, or it is private. The name is that of its page, `org/name`; a "
            "private one needs HF_TOKEN (or `hf auth login`) of an account that may read it"
        )
    if isinstance(error, OfflineModeIsEnabled) or "OfflineModeIsEnabled" in said:
        return (
            "HF_HUB_OFFLINE=1, and it is not in the cache; unset it once to download (HF_HOME says where the cache is)"
        )
    if isinstance(error, DataFilesNotFoundError | StopIteration):  # the second from a pattern that no file fits
        return "it has no files that `datasets` reads as rows (Parquet, JSON, CSV, ...)"
    if "scripts are no longer supported" in said:
        return (
            f"it is made by a script ({said.rpartition(' ')[2]}), and no code that comes with data is run. The hub "
            "keeps a copy of many in Parquet: `data.source: {name: hf, path: ..., revision: refs/convert/parquet}`"
        )
    return said
