"""The tokenizer of a local model, which may have ids that are beyond the model's tables."""

from collections.abc import Mapping, Sequence

from pydantic import JsonValue

from distillkit.context import RunContext
from distillkit.errors import RowError
from distillkit.types import Message
from distillkit_builtin.hf_tokenizer import HFTokenizer, shared_tokenizer
from distillkit_builtin.local.model_files.model_config import embedding_rows


class BoundedTokenizer(HFTokenizer):
    """Refuses prompts with ids that the model has no rows for, as after adding tokens without resizing the model."""

    def __init__(self, tokenizer: HFTokenizer, rows: int, model: str) -> None:
        """`rows` of the `model` are the ids 0 to `rows - 1`."""
        super().__init__(tokenizer.inner, tokenizer.source, eos_ids=tokenizer.eos_ids, today=tokenizer.today)
        self.rows = rows
        self.model = model

    def render_many(
        self, chats: Sequence[Sequence[Message]], options: Mapping[str, JsonValue]
    ) -> list[list[int] | RowError]:
        """What the tokenizer makes of each, or a RowError with the first token that the model does not know."""
        return [self._within(ids) for ids in super().render_many(chats, options)]

    def _within(self, ids: list[int] | RowError) -> list[int] | RowError:
        beyond = () if isinstance(ids, RowError) else [index for index in ids if index >= self.rows]
        if not beyond:
            return ids
        return RowError(
            "messages",
            f"the prompt has the token {self.show(beyond[:1])!r}, which is id {beyond[0]}, and {self.model!r} has rows "
            f"for the ids 0 to {self.rows - 1}: tokens were added to the tokenizer, and the model was not resized",
        )


def model_tokenizer(run: RunContext, source: str, model: str) -> HFTokenizer:
    """The run's one tokenizer of `source` for the prompts of `model`. Raises InputError if it cannot be read."""
    tokenizer = shared_tokenizer(run, source, model)
    rows = embedding_rows(model)
    if rows is None or max(tokenizer.vocabulary().values(), default=0) < rows:
        return tokenizer
    return run.share(("bounded tokenizer", source, model), lambda: BoundedTokenizer(tokenizer, rows, model))
