"""What is equal field by field."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np


def assert_same(found: Any, wanted: Any, path: str = "") -> None:
    """Equal in every field, whatever dataclasses say of equality; NaN equals NaN."""
    if dataclasses.is_dataclass(wanted):
        assert type(found) is type(wanted), path
        for field in dataclasses.fields(wanted):
            assert_same(getattr(found, field.name), getattr(wanted, field.name), f"{path}.{field.name}")
    elif isinstance(wanted, np.ndarray):
        assert found.dtype == wanted.dtype, path
        np.testing.assert_array_equal(found, wanted, path)
    elif isinstance(wanted, Mapping):
        assert found.keys() == wanted.keys(), path
        for name in wanted:
            assert_same(found[name], wanted[name], f"{path}[{name!r}]")
    elif isinstance(wanted, tuple | list):
        assert len(found) == len(wanted), path
        for index, inner in enumerate(wanted):
            assert_same(found[index], inner, f"{path}[{index}]")
    else:
        assert found == wanted or (found != found and wanted != wanted), path
