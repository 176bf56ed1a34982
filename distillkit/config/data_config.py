"""Section `data`: which rows a run has."""

from typing import Self

from pydantic import Field, model_validator

from distillkit.config.row_format_config import FilterExpression, FormatConfig, Sort
from distillkit.config.sections import Section
from distillkit.roles.dataset import Dataset

Paths = str | tuple[str, ...]


class DataConfig(Section):
    """The prompts: where their rows come from, and in which order they are taken."""

    path: Paths | None = Field(
        None, description="The rows to train on: a file, a folder, a glob, or a list of them; or `hf://org/name#split`."
    )
    source: Dataset | None = Field(None, description="Where they come from, if the path alone does not say it.")
    eval_path: Paths | None = Field(None, description="Held-out rows for the evaluators, as `path`.")
    eval_source: Dataset | None = Field(None, description="Where those come from, as `source`.")
    held_out_rows: int | None = Field(
        None,
        ge=1,
        description="Hold this many of the rows out for the evaluators, where there is no `eval_path`: chosen by the "
        "run's seed and by what rows hold, the same whenever the run goes on.",
    )
    format: FormatConfig = Field(
        default_factory=FormatConfig,
        description="What is made of a row's columns; what it leaves out is taken from the shape that rows have.",
    )
    filter: FilterExpression | None = Field(
        None,
        description="Which rows are used, also of those held out: an expression over a row's columns (`level > 3`) "
        "that gives true or false.",
    )
    sort: Sort | None = Field(
        None, description="Train the rows of each epoch in this order (`level`), as in a curriculum; null: in none."
    )
    max_rows: int | None = Field(
        None, ge=1, description="Use the first rows only (that `filter` keeps), shuffled or not."
    )
    max_eval_rows: int | None = Field(None, ge=1, description="Use the first held-out rows only.")
    max_prompt_tokens: int | None = Field(
        None,
        ge=1,
        description="Leave out rows, held-out ones too, with a longer prompt, of the student or of a teacher; the run "
        "says how many. Null: a prompt that leaves no room for `sampling.max_completion_tokens` is an error.",
    )
    epochs: int = Field(1, ge=1, description="How often the rows are gone through.")
    shuffle: bool = Field(True, description="Shuffle the rows of each epoch by the run's seed.")

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if self.path is None and self.source is None:
            raise ValueError("needs `path` (a file, a folder, a glob, hf://org/name#split) or `source`")
        for path, source in (("path", "source"), ("eval_path", "eval_source")):
            if getattr(self, path) is not None and getattr(self, source) is not None:
                raise ValueError(f"has `{path}` and `{source}`; the first is short for the second, so take one out")
        if self.held_out_rows is not None:
            for other in ("eval_path", "eval_source", "max_eval_rows"):
                if getattr(self, other) is not None:
                    raise ValueError(f"has `held_out_rows` and `{other}`; both say which are held out, so take one out")
        return self

    @property
    def holds_out(self) -> bool:
        """Whether there are held-out rows."""
        return not (self.eval_path is None and self.eval_source is None and self.held_out_rows is None)
