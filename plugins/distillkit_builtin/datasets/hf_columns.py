"""Columns of a Hugging Face dataset as plain Arrow: labels by name, arrays as lists, without what is no text."""

from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pyarrow as pa
    from datasets import Dataset, Features
    from datasets.features.features import FeatureType

Plain = Callable[["pa.Array"], "pa.Array"]
"""An array to the plain one."""


def left_out(features: "Features") -> Mapping[str, str]:
    """The columns that hold bytes, with what these are: `Image`, `Audio`, `bytes`, ..."""
    types = {field.name: field.type for field in features.arrow_schema}
    return {name: _media(feature) or "bytes" for name, feature in features.items() if _holds_bytes(types[name])}


def plain_batches(rows: "Dataset", omitted: Mapping[str, str], size: int) -> Iterator["pa.RecordBatch"]:
    """The rows without the columns that are left out, so many at a time; labels are their names (null for -1).

    Raises ValueError for what is no valid Arrow data: it comes from a file, and would end the process further on.
    """
    import pyarrow as pa

    plain = {name: _plain(feature) for name, feature in rows.features.items() if name not in omitted}
    for table in rows.with_format("arrow").iter(batch_size=size):
        for batch in table.to_batches():
            batch.validate(full=True)
            columns = [make(batch.column(name)) if make else batch.column(name) for name, make in plain.items()]
            yield pa.RecordBatch.from_arrays(columns, names=list(plain))


def _holds_bytes(kind: "pa.DataType") -> bool:
    import pyarrow as pa

    binary = (pa.types.is_binary, pa.types.is_large_binary, pa.types.is_fixed_size_binary, pa.types.is_binary_view)
    if any(test(kind) for test in binary):
        return True
    return any(_holds_bytes(kind.field(index).type) for index in range(kind.num_fields))


def _media(feature: "FeatureType") -> str:
    """The class of the first feature inside that a file is decoded to."""
    if isinstance(feature, Mapping):
        return next(filter(None, map(_media, feature.values())), "")
    if (inner := getattr(feature, "feature", None)) is not None:
        return _media(inner)
    return type(feature).__name__ if hasattr(feature, "decode") else ""


def _plain(feature: "FeatureType") -> Plain | None:
    """What makes a plain array of one of this feature; None if it is plain."""
    from datasets import ClassLabel

    if isinstance(feature, ClassLabel):
        return lambda array: _names(array, feature.names)
    if isinstance(feature, Mapping):
        inside = {name: _plain(inner) for name, inner in feature.items()}
        return (lambda array: _struct(array, inside)) if any(inside.values()) else None
    if (inner := getattr(feature, "feature", None)) is not None:
        make = _plain(inner)
        return (lambda array: _lists(array, make)) if make else None
    if hasattr(feature, "shape"):
        return lambda array: array.storage
    return None


def _names(labels: "pa.Array", names: list[str]) -> "pa.Array":
    import pyarrow as pa
    import pyarrow.compute as pc

    known = pc.if_else(pc.less(labels, 0), pa.scalar(None, labels.type), labels)
    return pa.array(names, pa.string()).take(known)


def _struct(array: "pa.StructArray", inside: Mapping[str, Plain | None]) -> "pa.Array":
    import pyarrow as pa

    names = [field.name for field in array.type]
    columns = [make(column) if (make := inside[name]) else column for name, column in zip(names, array.flatten(), strict=True)]
    return pa.StructArray.from_arrays(columns, names, mask=array.is_null())


def _lists(array: "pa.Array", make: Plain) -> "pa.Array":
    """Lists with their values made plain; null stays null."""
    import numpy as np
    import pyarrow as pa

    if pa.types.is_fixed_size_list(array.type):
        array = array.cast(pa.list_(array.type.value_type))
    missing = np.append(array.is_null().to_numpy(zero_copy_only=False), False)
    cls = pa.LargeListArray if pa.types.is_large_list(array.type) else pa.ListArray
    offsets = pa.array(array.offsets.to_numpy(), mask=missing)
    return cls.from_arrays(offsets, make(array.values))
