"""What is fuzzed: each target takes any bytes, and lets out what no user and no run may meet.

`make fuzz` feeds them with atheris, guided by coverage; `tests/hostile` feeds them with hypothesis. Each allows only
the exceptions that its reader promises, and asks of what it accepts that it be usable.
"""

import functools
from collections.abc import Callable, Mapping

from distillkit_builtin.http.dialects.echo import Echo
from distillkit_builtin.http.dialects.prompt_logprobs import PromptLogprobs
from distillkit_builtin.http.dialects.sglang import SGLang
from fuzz import hf_inputs
from fuzz.input_files import config, dataset, row_format
from fuzz.server_answers import FORMS, completion, fireworks, given_ids, models, response, scores

FILES = ("rows.json", "rows.csv", "rows.tsv", "rows.parquet", "rows.jsonl.gz", "rows.jsonl.zst", "rows")
"""Of every reader, and one whose name says nothing."""
TARGETS: Mapping[str, Callable[[bytes], None]] = {
    "dataset": dataset,
    "row_format": row_format,
    **{name: functools.partial(dataset, name=name) for name in FILES},
    "hf_address": hf_inputs.address,
    "saved_dataset": hf_inputs.saved,
    "config": config,
    "prompt_logprobs": functools.partial(scores, PromptLogprobs()),
    "echo": functools.partial(scores, Echo(max_tokens=1)),
    "sglang": functools.partial(scores, SGLang()),
    "vllm_tokens": given_ids,
    **{name: functools.partial(completion, form) for name, form in FORMS.items()},
    "models": models,
    "response": response,
    "fireworks": fireworks,
}
