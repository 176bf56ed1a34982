"""A push that is cancelled: at no moment is that lost, whatever a server answers in the same turn."""

from typing import Any

import pytest
from helpers.cancellation import count_cancellations

from builtin.remote.service import A, Service, says
from builtin.remote.virtual import run
from distillkit_builtin.pushed.weight_push import PushedVersion
from distillkit_builtin.sglang import push_kinds as sglang
from distillkit_builtin.vllm import push_kinds as vllm

VERSION = PushedVersion(0, "weights", "distillkit-nonce-v0")
KINDS = [vllm.VllmAdapterPush, vllm.FullWeightsPush, sglang.SGLangAdapterPush, sglang.SGLangWeightsPush]


@pytest.mark.parametrize("kind", KINDS)
def test_while_it_is_loaded(kind: Any) -> None:
    async def scenario() -> None:
        async with Service({A: says(200, {"success": True})}).client(A) as client:
            assert await count_cancellations(lambda: kind(client, "base", "nonce").load(A, VERSION)) > 1

    run(scenario())
