"""Which of transformers' attention functions a model computes with."""

from collections.abc import Iterator
from contextlib import contextmanager

from transformers import PreTrainedModel


@contextmanager
def attending_by(model: PreTrainedModel, name: str) -> Iterator[None]:
    """A context in which the text decoder attends by the function of this `name` among those of transformers."""
    config = model.config.get_text_config()
    before, config._attn_implementation = config._attn_implementation, name
    try:
        yield
    finally:
        config._attn_implementation = before
