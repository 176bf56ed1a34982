"""What the dataset `hf` reads: an address, and the files of a folder that `save_to_disk` wrote."""

import functools
import json
import shutil
import tempfile
from pathlib import Path

from distillkit import DataError
from distillkit.raw_row import RawRow
from distillkit_builtin.datasets.hf import HuggingFaceDataset
from distillkit_builtin.datasets.hf_address import HubAddress, find_saved, parse_hub_address

FILES = ("state.json", "dataset_info.json", "data-00000-of-00001.arrow")


def address(data: bytes) -> None:
    """What is accepted reads the same when it is written again, and leads out of no folder."""
    text = data.decode(errors="surrogateescape")
    try:
        found = parse_hub_address(f"hf://{text}")
    except DataError as error:
        require_one_line(error)
    else:
        assert parse_hub_address(str(found)) == found == HubAddress(found.repo, found.config, found.split)
        assert not {"", ".", ".."} & {*found.repo.split("/"), found.config, found.split}
        assert found.repo.isascii()
    try:
        find_saved(text)
    except DataError as error:
        require_one_line(error)


def saved(data: bytes) -> None:
    """The first byte says which of the files holds the rest."""
    folder = valid_folder().parent / "changed"
    shutil.copytree(valid_folder(), folder, dirs_exist_ok=True)
    (folder / FILES[(data or b"2")[0] % len(FILES)]).write_bytes(data[1:])
    try:
        for row in HuggingFaceDataset(path=str(folder)).read():
            assert not isinstance(row, RawRow) or isinstance(json.loads(row.text), dict)
    except DataError as error:
        require_one_line(error)


def saved_seeds() -> list[bytes]:
    """Each file as it should be."""
    return [f"{kind}".encode() + (valid_folder() / name).read_bytes() for kind, name in enumerate(FILES)]


@functools.cache
def valid_folder() -> Path:
    """Rows of many kinds, as `datasets` saves them; where this process writes."""
    from datasets import ClassLabel, Dataset, Features, Json, List, Value, disable_progress_bars

    disable_progress_bars()
    folder = Path(tempfile.mkdtemp(prefix="distillkit-fuzz-")) / "valid"
    message = {"role": Value("string"), "content": Value("string")}
    labels = List(ClassLabel(names=["a", "b"]))
    features = Features(
        {"m": List(message), "l": labels, "j": Json(), "t": Value("timestamp[us]"), "x": Value("float32")}
    )
    row = {"m": [{"role": "user", "content": "Why? é"}], "l": [0, 1, -1], "j": {"a": [1]}, "t": None, "x": 1.5}
    Dataset.from_list([row, dict.fromkeys(row), row], features=features).save_to_disk(str(folder))
    return folder


def require_one_line(error: DataError) -> None:
    """A message that is too long to be read, or cannot be printed, is a defect too."""
    assert "\n" not in str(error)
    assert len(str(error)) < 2000
    str(error).encode("utf-8", errors="backslashreplace")
