"""Which dialect a server speaks, and whether its tokenizer is ours: found out once, when a teacher is opened."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace

import numpy as np
from pydantic import JsonValue

from distillkit.arrays import token_ids
from distillkit.errors import AlignmentError, InputError
from distillkit.files.strict_json import shortened
from distillkit.tokenizer import PROBE, Tokenizer
from distillkit.types import Message
from distillkit_builtin.http.completions import NOT_ALLOWED
from distillkit_builtin.http.dialects.dialect import (
    LOGPROB_TOLERANCE,
    Dialect,
    ScoreQuery,
    UnprovedError,
)
from distillkit_builtin.http.dialects.echo import Echo
from distillkit_builtin.http.dialects.prompt_logprobs import PromptLogprobs
from distillkit_builtin.http.dialects.sglang import SGLang
from distillkit_builtin.http.dialects.vllm_tokens import VllmTokens
from distillkit_builtin.http.models import DialectName
from distillkit_builtin.http.options import HttpScorerOptions, more_logprobs
from distillkit_builtin.http.spoken import AT_IDS, Spoken
from distillkit_builtin.remote.request_fields import refused_field
from distillkit_builtin.remote.results import RefusedError, answered
from distillkit_builtin.remote.service_client import ServiceClient

DIALECTS: Sequence[Dialect] = (
    PromptLogprobs(),
    PromptLogprobs(max_tokens=1),
    SGLang(),
    Echo(),
    Echo(max_tokens=1),
)
"""In this order: SGLang answers an echo too, of whatever model is named, and computes whole prompts for it."""
VERSION_SECONDS = 5.0
"""Within which a server is to say its version; that is good to know, and no more."""
NOT_OFFERED = (403, 404, 405)
"""What a server answers at a path that it does not have, or that is switched off."""
WEIGHTS_PATHS = ("/get_model_info", "/weight_info")
"""Where SGLang, and vLLM in its development mode, say which weights they hold now."""
WHOLE_PROMPTS = (
    "it is asked for the logprobs of whole prompts; vLLM 0.32 or newer with --enable-scale-out, on its V2 model runner "
    f"(CUDA), computes and sends those of the responses alone ({VllmTokens.path})"
)
HOW_TO_START = (
    "vLLM gives what is needed as it is; another server must score the tokens of a prompt and name them by id "
    "(docs/serving-teachers.md)"
)


class NotOfferedError(UnprovedError):
    """The server has no token interface, or it is switched off: nobody asked for it, so nothing is wrong."""


async def find_spoken(
    client: ServiceClient, options: HttpScorerOptions, query: ScoreQuery, tell: Callable[[str], None]
) -> Spoken:
    """How every replica is asked for what `query` asks.

    With dialect `auto` a vLLM whose token interface works is asked by it, and one that has none as any other; `tell`
    hears why where it has one that does not work. Raises InputError as `find_dialect`, and for ids that are needed and
    not given.
    """
    by_tokens = options.dialect == "vllm_tokens"
    name = "prompt_logprobs" if by_tokens else options.dialect
    spoken = Spoken(await find_dialect(client, name, replace(query, at_ids=None)), most=options.max_logprobs)
    needed = query.at_ids is not None or by_tokens
    cheaper = options.dialect == "auto" and isinstance(spoken.dialect, PromptLogprobs) and not query.topk
    if not needed and not cheaper:
        return spoken
    by_ids = replace(spoken, given=VllmTokens())
    ids = query.response_ids[:, None] if query.at_ids is None else query.at_ids
    _, asked = next(by_ids.requests(replace(query, topk=0, at_ids=ids)))  # as many as one request may ask for
    for root in client.roots:
        try:
            await _require_given(client, root, spoken.dialect, asked)
        except UnprovedError as error:
            if not needed:
                if not isinstance(error, NotOfferedError):
                    tell(f"{root}: {WHOLE_PROMPTS}: {error}")
                return spoken
            raise InputError(f"{root} gives no logprobs of given ids ({VllmTokens.path}): {error}; {AT_IDS}") from error
        except AlignmentError as error:
            raise InputError(f"{root} gives no logprobs of given ids ({VllmTokens.path}): {error}; {AT_IDS}") from error
    return by_ids


async def _require_given(client: ServiceClient, root: str, dialect: Dialect, query: ScoreQuery) -> None:
    """Ask a replica for `query.at_ids`, which are those of the response.

    Raises:
        UnprovedError: if it refuses the token interface, with its own words; NotOfferedError where it has none.
        AlignmentError: if what it gives is not right: `dialect` must give the same numbers.
    """
    plain, tokens = replace(query, at_ids=None), VllmTokens()
    try:
        given = tokens.parse((await client.post_to(root, tokens.path, tokens.payload(query))).value, query)
    except RefusedError as error:
        kind = NotOfferedError if error.status in NOT_OFFERED else UnprovedError
        raise kind(f"it answered {error.status}: {error.message}{refused_field(error.message)}") from error
    known = dialect.parse((await client.post_to(root, dialect.path, dialect.payload(plain))).value, plain)
    if given.at_logprobs is None:
        raise AssertionError("the query has ids, which are those of the response")
    apart = float(np.abs(np.column_stack([given.logprobs, given.at_logprobs]) - known.logprobs[:, None]).max())
    if not apart <= LOGPROB_TOLERANCE:
        raise AlignmentError(
            f"they are {apart:.2f} nats from its own logprobs of the same tokens (it must run with --logprobs-mode "
            "raw_logprobs)"
        )


async def find_dialect(client: ServiceClient, name: DialectName, query: ScoreQuery) -> Dialect:
    """The first dialect in which every replica gives logprobs of exactly the query's tokens.

    Raises:
        InputError: with what the server said in each dialect, and how to start one that can score.
        UnansweredError: if a replica gives no response.
    """
    problems: list[str] = []
    for dialect in DIALECTS:
        if name not in ("auto", dialect.name):
            continue
        problem = await _problem(client, dialect, query)
        if problem is None:
            return dialect
        problems.append(f"{dialect.name} ({dialect.path}): {problem}")
    more = f"; for {query.topk} top-k tokens: {more_logprobs(query.topk)}" if query.topk else ""
    how = f"{HOW_TO_START}{more}"
    raise InputError("\n".join([f"{client.roots[0]} cannot score given tokens; {how}:", *_once(problems)]))


async def _problem(client: ServiceClient, dialect: Dialect, query: ScoreQuery) -> str | None:
    for root in client.roots:
        try:
            result = await client.post_to(root, dialect.path, dialect.payload(query))
            scored = dialect.parse(result.value, query)
        except RefusedError as error:
            if error.status in NOT_ALLOWED:
                said = f"{NOT_ALLOWED[error.status]}: {error.message}"
                raise InputError(f"{root} {said}; api_key_env names the key's variable") from error
            return answered(error)
        except (UnprovedError, AlignmentError) as error:
            return f"{root}: {error}"
        if scored.ids.tolist() != query.response_ids.tolist():
            return f"{root} scored ids {scored.ids.tolist()}, not {query.response_ids.tolist()}"
    return None


def probe_query(model: str, tokenizer: Tokenizer, needs: Mapping[str, int]) -> ScoreQuery:
    """A short prompt and response that any chat model can score, with what a run `needs` of scorers besides."""
    prompt = token_ids(tokenizer.render([Message("user", "Say hello.")], {}))
    response = token_ids(tokenizer.encode("Hello there, friend."))
    at_ids = np.repeat(response[:, None], needs["at_ids"], axis=1) if "at_ids" in needs else None
    return ScoreQuery(model, prompt, response, needs.get("topk", 0), at_ids)


async def require_same_tokenizer(client: ServiceClient, model: str, tokenizer: Tokenizer) -> None:
    """Raise InputError if a replica that can tokenize (vLLM's `/tokenize`) does it differently from `tokenizer`."""
    ours = tokenizer.encode(PROBE)
    for root in client.roots:
        try:
            result = await client.post_to(
                root, "/tokenize", {"model": model, "prompt": PROBE, "add_special_tokens": False}
            )
        except RefusedError:
            continue  # it has no such endpoint
        theirs = result.value.get("tokens") if isinstance(result.value, dict) else None
        if isinstance(theirs, list) and theirs != ours:
            raise InputError(
                f"the server at {root} encodes text in another way than tokenizer_model does (at "
                f"token {_first_difference(ours, theirs)} of a test text); set tokenizer_model to the tokenizer "
                "of the served model"
            )


async def served_weights(client: ServiceClient) -> Mapping[str, JsonValue]:
    """Path and version of the first replica's weights; often empty, since few servers have an endpoint for that."""
    found: dict[str, JsonValue] = {}
    for path in WEIGHTS_PATHS:
        try:
            result = await client.get_from(client.roots[0], path)
        except RefusedError:
            continue  # it has no such endpoint
        if isinstance(result.value, dict):
            found |= {name: result.value[name] for name in ("model_path", "weight_version") if name in result.value}
    return found


async def server_version(client: ServiceClient) -> str | None:
    """What the first replica says of its own version (vLLM's `/version`); None where it has no such endpoint."""
    result = await client.get_once(client.roots[0], "/version", VERSION_SECONDS)
    version = result.value.get("version") if result is not None and isinstance(result.value, dict) else None
    return shortened(version, 100) if isinstance(version, str) else None


def _first_difference(ours: Sequence[object], theirs: Sequence[object]) -> int:
    pairs = zip(ours, theirs, strict=False)
    return next((i for i, (a, b) in enumerate(pairs) if a != b), min(len(ours), len(theirs)))


def _once(lines: Sequence[str]) -> Iterator[str]:
    yield from dict.fromkeys(f"  {line}" for line in lines)
