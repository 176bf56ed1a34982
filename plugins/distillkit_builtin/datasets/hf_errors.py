"""What `datasets`, `huggingface_hub` and Arrow raise for what a folder, a repository or a connection gives them."""


def library_errors() -> tuple[type[Exception], ...]:
    """For `except`. They check little of what they read, so that these are of many kinds."""
    from datasets.exceptions import DatasetsError
    from huggingface_hub import errors
    from pyarrow import ArrowException

    http: type[Exception] = errors.HTTPError  # type: ignore[attr-defined]  # of httpx or httpx2, as its version has it
    wrong_content = (ValueError, TypeError, LookupError, AttributeError, RuntimeError, StopIteration)
    return (DatasetsError, http, ArrowException, OSError, *wrong_content)
