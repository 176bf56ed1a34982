"""What the tests of sampler `sglang` share."""

from typing import Any

from distillkit_builtin.sglang.sampler import SGLangSampler
from distillkit_loopback.openai.server import LoopbackServer

LOAD, UNLOAD, REPLACE = "/load_lora_adapter", "/unload_lora_adapter", "/update_weights_from_disk"


def sampler(*servers: LoopbackServer, **options: Any) -> SGLangSampler:
    url: Any = servers[0].url if len(servers) == 1 else [server.url for server in servers]
    return SGLangSampler(base_url=url, **options)
