"""A split that `save_to_disk` of the library `datasets` wrote into a folder."""

from distillkit import DataError
from distillkit_builtin.datasets.hf_address import SavedAddress
from distillkit_builtin.datasets.hf_errors import library_errors
from distillkit_builtin.datasets.hf_split import OpenedSplit, choose_split
from distillkit_builtin.file_errors import one_line


def open_saved(address: SavedAddress) -> OpenedSplit:
    """The split, mapped into memory. Raises DataError if it is not there, or damaged."""
    from datasets import DatasetDict, load_from_disk

    folder = str(address.folder)
    try:
        found = load_from_disk(folder, keep_in_memory=False)
    except library_errors() as error:
        raise DataError(f"{folder}: what `save_to_disk` wrote here cannot be read: {one_line(error)}") from error
    if isinstance(found, DatasetDict):
        split = choose_split(found, address.split, folder)
        return OpenedSplit(found[split], f"{folder}#{split}")
    if address.split is not None and address.split != str(found.split):
        raise DataError(f"{folder} holds one dataset, not a folder a split; leave out #{address.split}")
    return OpenedSplit(found, folder)
