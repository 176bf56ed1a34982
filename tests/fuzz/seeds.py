"""Where the fuzzer starts: a few inputs a target, made by code. `VALID` are answers that are accepted as they are."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from distillkit.testing import make_request
from fuzz.hf_inputs import saved_seeds

ROW = {"messages": [{"role": "user", "content": "Why? é \ud83e\udd8a"}], "teacher": "a", "expected_answer": 4}
ROUTED = {**ROW, "teacher": "b", "b_messages": [{"role": "user", "content": [{"type": "text", "text": "x"}]}]}
CONFIG = {
    "data": {"path": "rows.jsonl", "epochs": 2},
    "student": {"name": "fake", "learning_rate": 3.0e-1},
    "teachers": [{"model": "t", "scorer": {"name": "fake", "likes": "abc"}}],
    "sampling": {"stop": ["x"], "chat_template_kwargs": {"enable_thinking": False}},
    "train": {"max_steps": 3},
}
YAML = """name: run-1
base: &base {name: fake, likes: abc}
data: rows.jsonl
student: fake
teachers:
  - {model: t, scorer: {<<: *base, strength: 1.0}}
loss: {scale: !!float 1, ratio_log_cap: .inf}
seed: 0x10
"""
TOML = "name = 'x'\ndata = 'r'\n[student]\nname = 'fake'\n[[teachers]]\nmodel = 't'\nscorer = {name = 'fake'}\n"
OVERRIDES = 'train.max_steps=10\tteachers.0.model=org/name\tsampling.stop=[a, b]\tname="\\u0041"'

VALID: Mapping[str, Any] = {
    "prompt_logprobs": {
        "choices": [
            {
                "prompt_logprobs": [
                    None,
                    {"2": {"logprob": -1.0, "rank": 1}},
                    {"3": {"logprob": -1.0}, "9": {"logprob": -3.0}},
                    {"8": {"logprob": -1.0}, "4": {"logprob": -5.0}, "9": {"logprob": -2.0}},
                ]
            }
        ]
    },
    "echo": {
        "choices": [
            {
                "prompt_token_ids": [1, 2, 3, 4],
                "logprobs": {
                    "tokens": [f"token_id:{index}" for index in (1, 2, 3, 4)],
                    "token_logprobs": [None, -1.0, -2.0, -3.0],
                    "top_logprobs": [None, *({"token_id:3": -1.0, "token_id:9": -2.5} for _ in range(3))],
                },
            }
        ]
    },
    "sglang": {
        "meta_info": {
            "input_token_logprobs": [[None, 2, None], [-1.0, 3, None], [-2.0, 4, "x"]],
            "input_top_logprobs": [None, *([[-1.0, 3, None], [-1.5, 9, None]] for _ in range(2))],
        }
    },
    "completion": {
        "model": "m",
        "choices": [
            {
                "text": "no",
                "finish_reason": "stop",
                "token_ids": [110, 111],
                "prompt_token_ids": make_request().prompt_ids.tolist(),
                "logprobs": {"token_logprobs": [-0.5, -1]},
            }
        ],
    },
    "models": {"data": [{"id": "m", "max_model_len": 4096, "root": "/m", "parent": None}, {"id": "other"}]},
    "fireworks": {
        "text": "no",
        "finish_reason": "length",
        "raw_output": {"completion_token_ids": [1, 2, 3, 4, 5]},
        "logprobs": {"content": [{"logprob": -0.5, "sampling_logprob": None} for _ in range(5)]},
    },
}
RESPONSES = (
    b"\x00\x00\nContent-Type: application/json\n\n" + b'{"a": [NaN, 1e400]}',
    b"\x00\x00\nContent-Type: text/plain\n\nSuccess",
    b"\x00\xe5\nRetry-After: Tue, 03 Mar 2026 10:00:07 GMT\nDate: Tue, 03 Mar 2026 10:00:00 GMT\n\nslow down",
    b"\x00\xc8\nContent-Type: text/html; charset=hex\n\n<p>\x1b[2J",
    b'\x00\xc8\n\n{"detail": [{"loc": ["body", "n"], "msg": "field required"}]}',
    b"\x00\x66\nLocation: https://a/\n\n",
    b"\x00\x66\n\n",
)


def seeds(target: str) -> Sequence[bytes]:
    """The first inputs of a target."""
    if target == "dataset":
        rows = [json.dumps(row).encode() for row in (ROW, ROUTED)]
        return [b"\n".join(rows), b"\xef\xbb\xbf" + b"\r\n\r\n".join(rows), b'{"messages": [1e400, NaN, -0]}']
    if target == "hf_address":
        return [b"org/name", b"name#train", b"org/name/config#test", b"folder#split", b"org/name@main", b"../x"]
    if target == "saved_dataset":
        return saved_seeds()
    if target == "config":
        texts = (("0", YAML), ("1", TOML), ("2", json.dumps(CONFIG)))
        return [f"{kind}{line}\n{text}".encode() for kind, text in texts for line in ("", OVERRIDES)]
    if target == "response":
        return RESPONSES
    return [json.dumps(VALID[target]).encode()]
