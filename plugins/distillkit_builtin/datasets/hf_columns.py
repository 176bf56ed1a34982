"""Columns of a Hugging Face dataset as Arrow that is turned into JSON: labels by name, arrays as lists."""

from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING

from distillkit_builtin.datasets.arrow_values import is_json

if TYPE_CHECKING:
    import pyarrow as pa
    from datasets import Dataset, Features
    from datasets.features.features import FeatureType

Plain = Callable[["pa.Array"], "pa.Array"]
"""What makes a plain array of a column."""
BATCH_ROWS, BATCH_BYTES = 256, 2**20
"""Rows that are in memory at once at most, and what they should take; it goes by the mean row."""


def plain_batches(rows: "Dataset", omitted: Mapping[str, str]) -> Iterator["pa.RecordBatch"]:
    """The rows without the columns that are left out, a few at a time from the memory-mapped file.

    Raises ValueError for what is no valid Arrow data: it comes from a file, and would end the process further on.
    """
    import pyarrow as pa

    plain = {name: _plain(feature) for name, feature in rows.features.items() if name not in omitted}
    mean = rows.data.table.get_total_buffer_size() // max(1, len(rows))  # `nbytes` would trust offsets in the file
    size = max(1, min(BATCH_ROWS, BATCH_BYTES // max(1, mean)))
    for table in rows.with_format("arrow").iter(batch_size=size):
        for batch in table.to_batches():
            batch.validate(full=True)
            columns = [make(batch.column(name)) for name, make in plain.items()]
            yield pa.RecordBatch.from_arrays(columns, names=list(plain))


def left_out(features: "Features") -> Mapping[str, str]:
    """The columns that have no form in JSON, with what they hold: `Image`, `Audio`, `binary`, ..."""
    import pyarrow as pa

    omitted = {}
    for field in features.arrow_schema:
        feature = features[field.name]
        if not is_json(_plain(feature)(pa.nulls(0, field.type)).type):
            omitted[field.name] = _media(feature) or str(field.type)
    return omitted


def _media(feature: "FeatureType") -> str:
    """The class of the first feature inside that stands for a file."""
    if isinstance(feature, Mapping):
        return next(filter(None, map(_media, feature.values())), "")
    if (inner := getattr(feature, "feature", None)) is not None:
        return _media(inner)
    return type(feature).__name__ if hasattr(feature, "decode") else ""


def _plain(feature: "FeatureType") -> Plain:
    """By what `datasets` knows of a column and Arrow does not."""
    from datasets import ClassLabel

    if isinstance(feature, ClassLabel):
        return lambda labels: _names(labels, feature.names)
    if isinstance(feature, Mapping):
        inside = {name: _plain(inner) for name, inner in feature.items()}
        return lambda array: _struct(array, inside)
    if (inner := getattr(feature, "feature", None)) is not None:
        make = _plain(inner)
        return lambda array: _lists(array, make)
    if hasattr(feature, "shape"):  # Array2D to Array5D
        return lambda array: array.storage
    return lambda array: array


def _names(labels: "pa.Array", names: list[str]) -> "pa.Array":
    """The names of labels; -1 is no label."""
    import pyarrow as pa
    import pyarrow.compute as pc

    known = pc.if_else(pc.less(labels, 0), pa.scalar(None, labels.type), labels)
    return pa.array(names, pa.string()).take(known)


def _struct(array: "pa.StructArray", inside: Mapping[str, Plain]) -> "pa.Array":
    import pyarrow as pa

    names = [field.name for field in array.type]
    columns = [inside[name](column) for name, column in zip(names, array.flatten(), strict=True)]
    return pa.StructArray.from_arrays(columns, names, mask=array.is_null())


def _lists(array: "pa.Array", make: Plain) -> "pa.Array":
    """Lists with plain values; a list that is null stays null, and may have values that do not count."""
    import pyarrow as pa

    if pa.types.is_fixed_size_list(array.type):
        array = array.cast(pa.list_(array.type.value_type))
    cls = pa.LargeListArray if pa.types.is_large_list(array.type) else pa.ListArray
    offsets = pa.array(array.offsets.to_numpy())  # a copy, that begins with the first: with a mask they may be no slice
    return cls.from_arrays(offsets, make(array.values), mask=array.is_null())
