"""What servers of either kind answer where a completion is asked for."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from builtin.http.serving import opened
from builtin.pushed.conftest import Kind
from builtin.vllm.pushes import sample
from distillkit.errors import AlignmentError
from distillkit.records import Weights
from distillkit_loopback.openai import faults


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        (faults.NoIds(), "does not say which token ids it sampled|output_token_logprobs|output_ids"),
        (faults.Shorter(), "5 logprobs where 6 were expected"),
        (faults.BadLogprob(-9999.0), "token 5 is minus infinity"),
        (faults.BadLogprob(None), "token 5 is null"),
        (faults.BadLogprob(np.nan), "token 5 is nan"),
        (faults.BadLogprob(0.5), "a probability of more than one"),
    ],
    ids=repr,
)
async def test_one_without_proper_logprobs_ends_the_run(
    kind: Kind, adapters: Sequence[Weights], fault: Any, message: str
) -> None:
    server = kind.start()
    async with opened(kind.sampler(server)) as plugin:
        await plugin.sync(adapters[0])
        server.faults.add(fault, where=kind.completes)
        with pytest.raises(AlignmentError, match=message):
            await sample(plugin)
