"""Where the fuzzer starts: a few inputs a target, made by code. `VALID` are answers that are accepted as they are."""

import base64
import gzip
import io
import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from decimal import Decimal
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from distillkit.testing import make_request
from fuzz.hf_inputs import saved_seeds

ROW = {"messages": [{"role": "user", "content": "Why? é \ud83e\udd8a"}], "teacher": "a", "expected_answer": 4}
ROUTED = {**ROW, "teacher": "b", "b_messages": [{"role": "user", "content": [{"type": "text", "text": "x"}]}]}
COLUMNS = {
    "question": "Why? {{ 1 }}",
    "answer": "So. {% raw %}",
    "system": None,
    "turns": [{"from": "human", "value": "Why?"}, {"from": "gpt", "value": "So."}],
    "cell": '[{"role": "user", "content": "Why?"}]',
    "n": 3,
    "my column": "x",
    "teacher": "a",
}
SHAPES = (
    {"messages": [{"role": "user", "content": "Why?"}, {"role": "assistant", "content": "So."}]},
    {"prompt": "Why?", "chosen": "x"},
    {"question": "Why?", "answer": 4},
    {"conversations": [{"from": "human", "value": "Why?"}, {"from": "gpt", "value": "So."}], "system": "x"},
    {"instruction": "Why?", "input": "", "output": "So."},
    {"my column": "x", "it's": None},
)
CONFIG = {
    "data": {
        "path": "rows.jsonl",
        "epochs": 2,
        "format": {"prompt": "{{ question }}", "teacher_prompt": "{% if a is defined %}{{ a | upper }}{% endif %}"},
        "filter": "level > 3 and kind in ['a']",
        "sort": {"by": "level", "descending": True},
    },
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


def _npy(rows: Sequence[Sequence[float]]) -> str:
    file = io.BytesIO()
    np.save(file, np.array(rows, np.float32))
    return base64.b64encode(file.getvalue()).decode()


VALID: Mapping[str, Any] = {
    "vllm_tokens": {
        "model": "m",
        "prompt_token_ids": [1, 2, 3, 4],
        "prompt_token_id_logprobs": _npy([[-1.0, -2.0, -3.0], [-0.5, -4.0, -1.5]]),
    },
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
    "token_completion": {
        "model": "m",
        "prompt_token_ids": make_request().prompt_ids.tolist(),
        "choices": [
            {
                "finish_reason": "stop",
                "token_ids": [110, 111],
                "logprobs": {"content": [{"token_id": i, "logprob": -1, "top_logprobs": []} for i in (110, 111)]},
                "weight_versions": [{"version": "v0", "start": 0, "end": 2}],
            }
        ],
    },
    "sglang_completion": {
        "text": "no",
        "output_ids": [110, 111],
        "meta_info": {
            "finish_reason": {"type": "stop", "matched": 111},
            "output_token_logprobs": [[-0.5, 110, None], [-1, 111, None]],
            "weight_version": "v0",
            "weight_versions": [{"version": "v0", "start": 0, "end": 2}],
        },
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


def files(target: str) -> Sequence[bytes]:
    """The first files of a reader, by the file's name; `dataset` is of JSON lines."""
    rows = [json.dumps(row).encode() for row in (ROW, ROUTED)]
    lines = [b"\n".join(rows), b"\xef\xbb\xbf" + b"\r\n\r\n".join(rows), b'{"messages": [1e400, NaN, -0]}']
    array, indented = b"[" + b",".join(rows) + b"]", json.dumps(ROUTED, indent=1).encode()
    if target.endswith(".gz"):
        return [gzip.compress(lines[0], mtime=0), gzip.compress(array, mtime=0) + gzip.compress(b" ", mtime=0)]
    if target.endswith(".zst"):
        return [pa.compress(data, "zstd", asbytes=True) for data in (lines[0], indented)]
    if target.endswith(".parquet"):
        return [_parquet(version="1.0", compression="none"), _parquet(use_dictionary=False, compression="zstd")]
    if target.endswith((".csv", ".tsv")):
        between = b"," if target.endswith(".csv") else b"\t"
        cells = [b'"' + json.dumps(value).encode().replace(b'"', b'""') + b'"' for value in ROW.values()]
        header = between.join(name.encode() for name in ROW)
        return [header + b"\n" + between.join(cells) + b"\n" + cells[0], b'a;b\r\n"x\n', b"\xef\xbb\xbfa\n\n1\r2\n"]
    return [*lines, array, indented + indented, json.dumps([ROW, ROUTED], indent=1).encode()]


def _parquet(**options: Any) -> bytes:
    sink = pa.BufferOutputStream()
    when = {"when": datetime(2026, 3, 1), "price": Decimal("1.5"), "score": float("nan"), "image": b"x", "n": None}
    row = {**json.loads(json.dumps(ROW)), **when}  # whose text is no longer of halves of a pair
    pq.write_table(pa.Table.from_pylist([row, row]), sink, row_group_size=1, **options)
    return bytes(sink.getvalue())


def seeds(target: str) -> Sequence[bytes]:
    """The first inputs of a target."""
    if target == "dataset" or target.startswith("rows"):
        return files(target)
    if target == "row_format":
        lines = [json.dumps(row).encode() for row in (COLUMNS, ROW, *SHAPES)]
        return [b"\n".join(lines), *lines]
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
