"""SkyRL's Tinker server in this interpreter: `python serve.py --base-model DIR --backend jax --port 8123 ...`.

It runs in SkyRL's environment, which `make test-servers` sets up, and takes SkyRL's own options, `--host`, `--port`,
`--prompt-logprobs` and `--lengths`. Where it differs from `skyrl.tinker.api`, and why, is said at each place, and in
docs/developers/real-servers.md.
"""

import argparse
import os
import sys
import tarfile
import typing
from collections.abc import Sequence
from typing import Any

import typing_extensions

ALIGNMENT = "PROMPT_LOGPROBS"
"""`n`: N prompt logprobs of which the first is None, as hosted Tinker answers; `n-1`: as the JAX backend does."""
LENGTHS = "PADDED_LENGTHS"
"""Of ids, to which the engine pads, with commas between; longer ones to SkyRL's own lengths."""
STEPS = 32
"""Completions are sampled in a multiple of so many steps."""
STOPS = 4
"""Stop ids a request, at least."""


def run_engine(arguments: list[str]) -> None:
    """SkyRL's other process: the one that computes."""
    import skyrl.backends.jax as backend
    import skyrl.tinker.engine as engine

    if os.environ.get(ALIGNMENT) == "n":
        give_n_prompt_logprobs(backend)
    pad_to_few_shapes(backend, [int(length) for length in os.environ[LENGTHS].split(",") if length])
    batch_one_kind(engine)
    sys.argv = ["skyrl.tinker.engine", *arguments]
    engine.main()


def give_n_prompt_logprobs(backend: Any) -> None:
    """Let prompt logprobs begin with a None."""
    sample = backend.JaxBackendImpl.sample

    def with_first(self: Any, prepared_batch: Any) -> Any:
        answers = sample(self, prepared_batch)
        for answer in answers.values():
            if getattr(answer, "prompt_logprobs", None) is not None:
                answer.prompt_logprobs = [None, *answer.prompt_logprobs]
        return answers

    backend.JaxBackendImpl.sample = with_first


def pad_to_few_shapes(backend: Any, lengths: Sequence[int]) -> None:
    """Let XLA compile few shapes. What is added is masked, never matches, or lies behind the last token asked for."""
    import numpy as np
    from skyrl.tx.utils.generator import GeneratorMixin
    from skyrl.tx.utils.models import round_up_seq_len

    compiled = GeneratorMixin._prefill_and_decode
    backend.round_up_seq_len = lambda length: next((one for one in lengths if one >= length), round_up_seq_len(length))

    def prefill_and_decode(
        model: Any,
        ids: Any,
        mask: Any,
        _: int,
        tokens: int,
        adapters: Any,
        heats: Any,
        rngs: Any,
        stops: Any,
        *more: Any,
        **named: Any,
    ) -> Any:
        top_k, top_p, largest_k, use_top_p = more
        steps = 1 if tokens == 1 else -(-tokens // STEPS) * STEPS
        length = round_up_seq_len(ids.shape[1] + steps)
        stops = np.asarray(stops)
        stops = np.pad(stops, [(0, 0), (0, max(0, STOPS - stops.shape[1]))], constant_values=-1)
        options = (top_k, top_p, max(1, largest_k), use_top_p)  # where a request has no top_k, it changes nothing
        return compiled(model, ids, mask, length, steps, adapters, heats, rngs, stops, *options, **named)

    GeneratorMixin._prefill_and_decode = staticmethod(prefill_and_decode)


def batch_one_kind(engine: Any) -> None:
    """Do not put scoring and sampling into one batch, whose shape would be of both; the others' turn comes next."""
    find = engine.TinkerEngine.find_batchable_sample

    def of_the_first(self: Any, session: Any) -> Any:
        found = find(self, session)
        first = next((request.prompt_logprobs for _, request in found.values()), False)
        return {key: pair for key, pair in found.items() if pair[1].prompt_logprobs == first}

    engine.TinkerEngine.find_batchable_sample = of_the_first


def extract_without_filters() -> None:
    """Python 3.11.2, as Debian has it, knows no filters of what an archive may write; the archives are SkyRL's own."""
    extract = tarfile.TarFile.extractall

    def extractall(self: tarfile.TarFile, path: Any = ".", members: Any = None, *, filter: str) -> None:
        extract(self, path, members)

    tarfile.TarFile.extractall = extractall  # type: ignore[assignment]


def run_api(arguments: list[str]) -> None:
    """The process that speaks Tinker's protocol, and starts the other."""
    import skyrl.tinker.api as api
    import uvicorn
    from skyrl.tinker.config import EngineConfig, add_model, config_to_argv

    # SkyRL starts the engine by `uv run`, which makes an environment of its own.
    api._build_uv_run_cmd_engine = lambda _, config: [sys.executable, __file__, "--engine", *config_to_argv(config)]
    name_sampled_sequences(api)
    parser = argparse.ArgumentParser()
    add_model(parser, EngineConfig)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8123)
    parser.add_argument("--prompt-logprobs", choices=["n", "n-1"], default="n-1")
    parser.add_argument("--lengths", default="")
    options = parser.parse_args(arguments)
    os.environ |= {ALIGNMENT: options.prompt_logprobs, LENGTHS: options.lengths}
    known = {name: value for name, value in vars(options).items() if name in EngineConfig.model_fields}
    api.app.state.engine_config = EngineConfig.model_validate(known)
    uvicorn.run(api.app, host=options.host, port=options.port, log_level="warning")


def name_sampled_sequences(api: Any) -> None:
    """Add `sample_sequence_ids` to what /asample promises: Tinker's SDK 0.38 asserts them, SkyRL 0.4.0 has none."""
    from fastapi import Depends, Request

    Session = typing.Annotated[Any, Depends(api.get_session)]  # noqa: N806 - a type
    routes = api.app.router.routes
    routes[:] = [route for route in routes if getattr(route, "path", "") != "/api/v1/asample"]

    @api.app.post("/api/v1/asample")
    async def asample(request: api.SampleRequest, http: Request, session: Session) -> Any:
        promise = await api.asample(request, http, session)
        ids = [f"seq-{promise.request_id}-{index}" for index in range(request.num_samples)]
        return {**promise.model_dump(), "sample_sequence_ids": ids}


if __name__ == "__main__":
    if sys.version_info < (3, 12):  # pydantic takes only this one in models, and SkyRL 0.4.0 is written for 3.12
        typing.TypedDict = typing_extensions.TypedDict
    if not hasattr(tarfile, "data_filter"):
        extract_without_filters()
    if sys.argv[1:2] == ["--engine"]:
        run_engine(sys.argv[2:])
    else:
        run_api(sys.argv[1:])
