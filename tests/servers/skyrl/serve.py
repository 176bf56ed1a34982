"""SkyRL's Tinker server in this interpreter: `python serve.py --base-model DIR --backend jax --port 8123 ...`.

It runs in SkyRL's environment, which `make test-servers` sets up, and takes SkyRL's own options, `--host`, `--port` and
`--prompt-logprobs`. Where it differs from `skyrl.tinker.api`, and why, is said at each place, and in
docs/developers/real-servers.md.
"""

import argparse
import os
import runpy
import sys
import typing
from typing import Any

import typing_extensions

ALIGNMENT = "PROMPT_LOGPROBS"
"""`n`: N prompt logprobs of which the first is None, as hosted Tinker answers; `n-1`: as the JAX backend does."""


def run_engine(arguments: list[str]) -> None:
    """SkyRL's other process: the one that computes."""
    if os.environ.get(ALIGNMENT) == "n":
        import skyrl.backends.jax as backend

        sample = backend.JaxBackendImpl.sample

        def with_first(self: Any, prepared_batch: Any) -> Any:
            answers = sample(self, prepared_batch)
            for answer in answers.values():
                if getattr(answer, "prompt_logprobs", None) is not None:
                    answer.prompt_logprobs = [None, *answer.prompt_logprobs]
            return answers

        backend.JaxBackendImpl.sample = with_first
    sys.argv = ["skyrl.tinker.engine", *arguments]
    runpy.run_module("skyrl.tinker.engine", run_name="__main__")


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
    options = parser.parse_args(arguments)
    os.environ[ALIGNMENT] = options.prompt_logprobs
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
    if sys.argv[1:2] == ["--engine"]:
        run_engine(sys.argv[2:])
    else:
        run_api(sys.argv[1:])
