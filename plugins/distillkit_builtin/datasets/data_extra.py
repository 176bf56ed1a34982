"""What the extra `data` installs, imported when it is needed."""

from collections.abc import Iterator
from contextlib import contextmanager

from distillkit import MissingExtraError


@contextmanager
def data_extra(what: str) -> Iterator[None]:
    """Around imports of pyarrow for `what`. Raises MissingExtraError where it is not installed."""
    try:
        yield
    except ModuleNotFoundError as error:
        raise MissingExtraError(f"{what} needs {error.name}: pip install 'distillkit[data]'") from error
