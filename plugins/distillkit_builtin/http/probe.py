"""Which dialect does a server speak, and does it read our ids as we do? Found out once, when a teacher is opened."""

from collections.abc import Iterator, Mapping, Sequence

from pydantic import JsonValue

from distillkit.arrays import token_ids
from distillkit.errors import AlignmentError, InputError
from distillkit.tokenizer import PROBE, Tokenizer
from distillkit.types import Message
from distillkit_builtin.http.dialects.dialect import Dialect, Question, UnprovedError
from distillkit_builtin.http.dialects.echo import Echo
from distillkit_builtin.http.dialects.prompt_logprobs import PromptLogprobs
from distillkit_builtin.http.dialects.sglang import SGLang
from distillkit_builtin.http.models import DialectName
from distillkit_builtin.remote.results import RefusedError
from distillkit_builtin.remote.service_client import Remote

DIALECTS: Sequence[Dialect] = (
    PromptLogprobs(),
    PromptLogprobs(max_tokens=1),
    Echo(),
    Echo(max_tokens=1),
    SGLang(),
)
OF_WEIGHTS = ("/get_model_info", "/weight_info")
"""Where SGLang, and vLLM in its development mode, say which weights they hold now."""
HOW_TO_START = (
    "vLLM gives what is needed as it is; another server must score the tokens of a prompt and name them by id "
    "(docs/serving-teachers.md)"
)


async def find_dialect(remote: Remote, name: DialectName, question: Question) -> Dialect:
    """The first dialect in which every replica gives logprobs of exactly the tokens that are asked about.

    Raises:
        InputError: with what each dialect was answered, and how to start a server that can.
        UnansweredError: if a replica does not answer.
    """
    problems: list[str] = []
    for dialect in DIALECTS:
        if name not in ("auto", dialect.name):
            continue
        problem = await _problem(remote, dialect, question)
        if problem is None:
            return dialect
        problems.append(f"{dialect.name} ({dialect.path}): {problem}")
    raise InputError("\n".join([f"{remote.roots[0]} cannot score given tokens; {HOW_TO_START}:", *_once(problems)]))


async def _problem(remote: Remote, dialect: Dialect, question: Question) -> str | None:
    for root in remote.roots:
        try:
            answer = await remote.post_to(root, dialect.path, dialect.payload(question))
            reading = dialect.read(answer.value, question)
        except RefusedError as error:
            if error.status in (401, 403):
                raise InputError(f"{root} refuses the key: {error.message}; api_key_env names its variable") from error
            return f"{root} answered {error.status}: {error.message}"
        except (UnprovedError, AlignmentError) as error:
            return f"{root}: {error}"
        if reading.ids.tolist() != question.response_ids.tolist():
            return f"{root} scored ids {reading.ids.tolist()}, not {question.response_ids.tolist()}"
    return None


def probe_question(model: str, tokenizer: Tokenizer, topk: int) -> Question:
    """A short question that any chat model can be asked."""
    prompt = tokenizer.render([Message("user", "Say hello.")], {})
    return Question(model, token_ids(prompt), token_ids(tokenizer.encode("Hello there, friend.")), topk)


async def require_same_tokenizer(remote: Remote, model: str, tokenizer: Tokenizer) -> None:
    """Raise InputError if a replica that can tokenize (vLLM's `/tokenize`) does it differently from `tokenizer`."""
    ours = tokenizer.encode(PROBE)
    for root in remote.roots:
        try:
            answer = await remote.post_to(
                root, "/tokenize", {"model": model, "prompt": PROBE, "add_special_tokens": False}
            )
        except RefusedError:
            continue  # it has no such endpoint
        theirs = answer.value.get("tokens") if isinstance(answer.value, dict) else None
        if isinstance(theirs, list) and theirs != ours:
            raise InputError(
                f"the server at {root} encodes text in another way than tokenizer_model does (at "
                f"token {_first_difference(ours, theirs)} of a test text); set tokenizer_model to the tokenizer "
                "of the served model"
            )


async def told_of_weights(remote: Remote) -> Mapping[str, JsonValue]:
    """What the first replica says of its weights besides `/v1/models`: often nothing, since few servers have a word."""
    told: dict[str, JsonValue] = {}
    for path in OF_WEIGHTS:
        try:
            answer = await remote.get_from(remote.roots[0], path)
        except RefusedError:
            continue  # it has no such endpoint
        if isinstance(answer.value, dict):
            told |= {name: answer.value[name] for name in ("model_path", "weight_version") if name in answer.value}
    return told


def _first_difference(ours: Sequence[object], theirs: Sequence[object]) -> int:
    pairs = zip(ours, theirs, strict=False)
    return next((i for i, (a, b) in enumerate(pairs) if a != b), min(len(ours), len(theirs)))


def _once(lines: Sequence[str]) -> Iterator[str]:
    yield from dict.fromkeys(f"  {line}" for line in lines)
