"""The engine's Tokenizer on top of a transformers tokenizer and its chat template. Needs no torch."""

import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import date
from typing import TYPE_CHECKING, Any, TypeVar

from pydantic import JsonValue

from distillkit.context import RunContext
from distillkit.errors import InputError, RowError
from distillkit.tokenizer import TurnEnds
from distillkit.types import Message
from distillkit_builtin.file_errors import unavailable
from distillkit_builtin.hub import hub_options
from distillkit_builtin.model_source import resolve_model, tokenizer_source
from distillkit_builtin.template_date import dated, writes_date
from distillkit_builtin.template_variables import require_usable, said, template_errors, template_variables
from distillkit_builtin.tool_arguments import Turns, has_calls, with_json_arguments
from distillkit_builtin.turn_end import eos_ids_in, template_end

if TYPE_CHECKING:
    from tokenizers import Tokenizer
    from transformers import PreTrainedTokenizerBase

T = TypeVar("T")

FOR_THE_TEMPLATE = ("tools", "documents")
"""What `apply_chat_template` takes and passes to the template, as it does with every name that it does not know."""


class HFTokenizer:
    """A transformers tokenizer, as the engine sees it."""

    def __init__(
        self,
        tokenizer: "PreTrainedTokenizerBase",
        source: str,
        *,
        eos_ids: Iterable[int] = (),
        today: date | None = None,
    ) -> None:
        """`source` is what errors call it: a directory, or `org/name` on the hub.

        `eos_ids` are its model's own, `today` is what templates write that ask for the date.
        """
        self.inner = tokenizer
        self.source = source
        self.today = today or date.today()
        self._vocabulary: Mapping[str, int] = tokenizer.get_vocab()
        named = [] if tokenizer.eos_token_id is None else [int(tokenizer.eos_token_id)]
        known = set(self._vocabulary.values())
        self.eos_ids = tuple(index for index in dict.fromkeys([*named, *eos_ids]) if index in known)
        """The ids at which the model ends a completion: the tokenizer's own first, then those that its configs name."""
        taken = inspect.signature(tokenizer.apply_chat_template).parameters.keys() - set(FOR_THE_TEMPLATE)
        self._taken = taken | {"messages"}  # which templates get the conversation as
        self._backend = backend_of(tokenizer)
        self._shown: dict[int, str] = {}

    @classmethod
    def load(cls, source: str, model: str | None = None, today: date | None = None) -> "HFTokenizer":
        """Read a tokenizer, and the EOS ids of `model`, by default those of the model that it lies beside.

        Raises:
            InputError: if it cannot be had or has no chat template.
        """
        from transformers import AutoTokenizer

        place = tokenizer_source(source)
        try:
            tokenizer = AutoTokenizer.from_pretrained(
                place, trust_remote_code=False, **hub_options()
            )  # None would ask the user
        except Exception as error:  # the tokenizers library raises no narrower one for a file that is damaged
            raise InputError(unavailable("tokenizer", place, error)) from error
        if not tokenizer.chat_template:
            raise InputError(
                f"the tokenizer of {source!r} has no chat template, so messages cannot be rendered; choose an instruct "
                "model, or a local copy whose tokenizer has `chat_template` set"
            )
        require_usable(source, templates_of(tokenizer))
        return cls(tokenizer, source, eos_ids=eos_ids_in(resolve_model(model or source).base), today=today)

    @property
    def writes_date(self) -> bool:
        """Whether the chat template asks for today's date."""
        return writes_date(str(self.inner.chat_template))

    def render(self, messages: Sequence[Message], options: Mapping[str, JsonValue]) -> list[int]:
        """The ids of the prompt, ending with the template's opening of the assistant's turn.

        Raises:
            InputError: if an option changes the rendering itself.
            RowError: if the template refuses the messages.
        """
        (ids,) = self.render_many([messages], options)
        if isinstance(ids, RowError):
            raise ids
        return ids

    def render_many(
        self, chats: Sequence[Sequence[Message]], options: Mapping[str, JsonValue]
    ) -> list[list[int] | RowError]:
        """The same for many prompts, which are tokenized on all cores. Raises InputError."""
        self._require_for_template(options)
        turns = [[message.as_dict() for message in messages] for messages in chats]
        if self._backend is None:
            return [self._applied(_ids, chat, options) for chat in turns]
        texts = self._texts(turns, options)
        encoded = self._encode_all(self._backend, [text for text in texts if isinstance(text, str)])
        return [next(encoded) if isinstance(text, str) else text for text in texts]

    def _texts(self, turns: list[Turns], options: Mapping[str, JsonValue]) -> list[str | RowError]:
        """The prompts before they are tokenized: all at once, or, where that fails, each by itself."""
        together = self._applied(list, turns, {**options, "tokenize": False}) if all(turns) else None
        if not isinstance(together, list):
            together = [self._text(chat, options) for chat in turns]
        return [
            with_json_arguments(chat, text, lambda other: self._text(other, options)) if has_calls(chat) else text
            for chat, text in zip(turns, together, strict=True)
        ]

    def _text(self, chat: Turns, options: Mapping[str, JsonValue]) -> str | RowError:
        return self._applied(str, chat, {**options, "tokenize": False})

    def _applied(
        self, read: Callable[[Any], T], chat: Turns | list[Turns], options: Mapping[str, JsonValue]
    ) -> T | RowError:
        """What the chat template makes of messages: ids or a text, and of many chats as many."""
        conversation: Any = chat
        template_options: dict[str, Any] = dict(options)
        if self.writes_date:
            template_options["chat_template"] = dated(self._template(options), self.today)
        try:
            made: Any = self.inner.apply_chat_template(
                conversation, add_generation_prompt=True, return_dict=False, **template_options
            )
        except template_errors() as error:  # templates compute with what rows and options hold
            problem = RowError("messages", f"the chat template of {self.source!r} refuses them: {said(error)}")
            problem.__cause__ = error
            return problem
        return read(made)

    def _template(self, options: Mapping[str, JsonValue]) -> str:
        """The chat template that transformers takes: a tokenizer may have one of its own for tools."""
        tools: Any = options.get("tools")
        return str(self.inner.get_chat_template(None, tools))

    def _encode_all(self, backend: "Tokenizer", texts: list[str]) -> Iterator[list[int]]:
        """Token ids of rendered prompts as transformers has them made, but without each token's position."""
        if backend.truncation is not None:
            backend.no_truncation()
        if backend.padding is not None:
            backend.no_padding()
        backend.encode_special_tokens = self.inner.split_special_tokens
        return (encoding.ids for encoding in backend.encode_batch_fast(texts, add_special_tokens=False))

    def template_variables(self) -> frozenset[str] | None:
        """The names that the chat template reads; None where the tokenizer writes prompts in a way of its own."""
        templates = templates_of(self.inner)
        return template_variables(templates) if templates and self._backend is not None else None

    def _require_for_template(self, options: Mapping[str, object]) -> None:
        wrong = [name for name in options if name in self._taken]
        if wrong:
            raise InputError(
                f"chat_template_kwargs: {', '.join(wrong)} would change how distillkit renders prompts, not the chat "
                "template; only what the template itself reads belongs there, such as enable_thinking"
            )

    def encode(self, text: str) -> list[int]:
        """The ids of plain text."""
        return [int(index) for index in self.inner.encode(text, add_special_tokens=False)]

    def decode(self, ids: Sequence[int]) -> str:
        """The text of ids, without special tokens."""
        return str(self.inner.decode(list(ids), skip_special_tokens=True))

    def show(self, ids: Sequence[int]) -> str:
        """The text of ids with every special token visible; that of a single id is cached."""
        if len(ids) != 1:
            return str(self.inner.decode(list(ids), skip_special_tokens=False))
        (index,) = ids
        if index not in self._shown:
            self._shown[index] = str(self.inner.decode([index], skip_special_tokens=False))
        return self._shown[index]

    def vocabulary(self) -> Mapping[str, int]:
        """Every token's id."""
        return self._vocabulary

    def special_tokens(self) -> Mapping[str, int]:
        """Added tokens that are marked special."""
        added = self.inner.added_tokens_decoder
        return {str(token.content): int(index) for index, token in added.items() if token.special}

    def turn_ends(self, options: Mapping[str, JsonValue]) -> TurnEnds:
        """By the chat template with these options, and by the model's configs. Raises InputError as `render` does."""
        self._require_for_template(options)
        return TurnEnds(template_end(self.inner, options, self.eos_ids), self.eos_ids)


def templates_of(tokenizer: "PreTrainedTokenizerBase") -> tuple[str, ...]:
    """Its chat templates: some have one of their own for tools."""
    template = tokenizer.chat_template
    return tuple(template.values()) if isinstance(template, dict) else (template,) if template else ()


def backend_of(tokenizer: "PreTrainedTokenizerBase") -> "Tokenizer | None":
    """The compiled tokenizer, where transformers adds nothing of its own to what it makes of a rendered prompt.

    None for a tokenizer without one, and for a class with a way of its own, such as that of Mistral's own tokenizers.
    """
    from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

    cls = type(tokenizer)
    own_way = (
        not isinstance(tokenizer, PreTrainedTokenizerFast)
        or cls.apply_chat_template is not PreTrainedTokenizerBase.apply_chat_template
        or cls.__call__ is not PreTrainedTokenizerBase.__call__
        or cls._encode_plus is not PreTrainedTokenizerFast._encode_plus
    )
    return None if own_way else tokenizer.backend_tokenizer


def _ids(made: Iterable[int]) -> list[int]:
    return [int(index) for index in made]


def shared_tokenizer(run: RunContext, source: str, model: str | None = None) -> HFTokenizer:
    """The run's one tokenizer for `source`, with the EOS ids of `model`, by default those beside it.

    It takes the run's day for today, and says so where that is written.
    """
    model = model or source

    def load() -> HFTokenizer:
        tokenizer = HFTokenizer.load(source, model, run.today)
        if tokenizer.writes_date:
            run.notify(
                f"the chat template of {source!r} writes the date; it is {run.today} for the whole run, also after a "
                f"resume. To have the same prompts on another day, set sampling.template_date: {run.today}"
            )
        return tokenizer

    return run.share(("tokenizer", source, model), load)
