"""Whatever is read, only the exceptions that are promised come out. What is fuzzed is said in `fuzz.targets`."""

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fuzz import input_files, required, run, server_answers
from fuzz.required import LONGEST_MESSAGE, PROMPT, RESPONSE
from fuzz.seeds import COLUMNS, RESPONSES, ROUTED, ROW, SHAPES, VALID, YAML, seeds
from fuzz.targets import FILES, TARGETS
from hypothesis import given
from hypothesis import strategies as st

from distillkit.arrays import token_ids
from distillkit.cli.scaffold_from_data import write_for
from distillkit.config.data_config import DataConfig
from distillkit.config.load import read_config_file
from distillkit.errors import InputError
from distillkit.records import Rollout
from distillkit.testing import make_request
from distillkit_builtin.http.dialects.dialect import ScoreQuery
from distillkit_builtin.http.dialects.echo import Echo
from distillkit_builtin.http.dialects.prompt_logprobs import PromptLogprobs
from distillkit_builtin.http.dialects.sglang import SGLang
from distillkit_builtin.http.dialects.vllm_tokens import VllmTokens
from distillkit_builtin.http.models import served_models
from hostile.shapes import HOSTILE_COLUMNS, JSON, KEYS, OVERRIDES, QUICK, TEXTS, as_body, wrong_in_one_place
from hostile.shapes import YAML as ANY_YAML

ANSWERS = list(VALID)


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("nothing", [b"", b"\0", b"\xff", b"[" * 10_000, b"null", b'"\\ud800"'])
def test_what_is_no_input_at_all(target: str, nothing: bytes) -> None:
    TARGETS[target](nothing)


@pytest.mark.parametrize("target", TARGETS)
def test_where_the_fuzzer_starts(target: str) -> None:
    for content in seeds(target):
        TARGETS[target](content)


@QUICK
@given(st.lists(JSON.map(as_body) | st.binary(max_size=30), max_size=4))
def test_any_rows(lines: list[bytes]) -> None:
    input_files.dataset(b"\n".join(lines))


@QUICK
@given(wrong_in_one_place(ROW) | wrong_in_one_place(ROUTED))
def test_rows_that_are_wrong_in_one_place(row: Any) -> None:
    input_files.dataset(as_body(row))


LAYOUTS = st.sampled_from([{}, {"indent": 1}, {"indent": 0, "ensure_ascii": False}, {"separators": (",", ":")}])


@QUICK
@given(st.lists(JSON | wrong_in_one_place(ROUTED), max_size=3), LAYOUTS, st.binary(max_size=3), st.sampled_from(FILES))
def test_any_rows_in_an_array(rows: list[Any], how: dict[str, Any], rest: bytes, name: str) -> None:
    input_files.dataset(json.dumps(rows, **how).encode() + rest, name)


@QUICK
@given(
    st.lists(st.sampled_from(['"', ",", ";", "\t", "\n", "\r", "\0", "a", "messages", '""', "é"]) | TEXTS, max_size=20)
)
def test_any_table_as_text(parts: list[str]) -> None:
    for name in ("rows.csv", "rows.tsv"):
        input_files.dataset("".join(parts).encode(errors="surrogatepass"), name)


@QUICK
@given(st.sampled_from(FILES), st.integers(0, 1), st.data())
def test_any_file_that_is_damaged_in_a_few_places(name: str, which: int, data: st.DataObject) -> None:
    content = bytearray(seeds(name)[which])
    for _ in range(data.draw(st.integers(1, 3))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    input_files.dataset(bytes(content[: data.draw(st.integers(1, len(content)))]), name)
    input_files.dataset(bytes(content), name)


@QUICK
@given(st.lists(wrong_in_one_place(COLUMNS) | st.sampled_from(SHAPES).flatmap(wrong_in_one_place) | JSON, max_size=4))
def test_any_rows_by_a_mapping(rows: list[Any]) -> None:
    input_files.row_format(b"\n".join(map(as_body, rows)))


@QUICK
@given(st.lists(st.dictionaries(KEYS | HOSTILE_COLUMNS, JSON | HOSTILE_COLUMNS, max_size=5), min_size=1, max_size=6))
def test_a_config_is_written_for_any_rows(rows: list[Any]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "rows.jsonl"
        path.write_bytes(b"\n".join(map(as_body, rows)))
        try:
            written = write_for(str(path), Path(folder), 2, input_files.registry())
        except InputError as error:
            required.require_short(error)
            return
        tree = read_config_file(written.files[0])
        DataConfig.model_validate(tree["data"])
        assert len({teacher["route_value"] for teacher in tree["teachers"]}) == 2


@QUICK
@given(st.integers(0, 2), st.lists(OVERRIDES, max_size=2), ANY_YAML, st.booleans())
def test_any_config(kind: int, overrides: list[str], text: str, valid_too: bool) -> None:
    head = "\t".join(overrides).replace("\n", " ")
    content = f"{kind}{head}\n{text}{YAML if valid_too else ''}"
    input_files.config(content.encode(errors="surrogatepass"))


@QUICK
@given(JSON)
def test_any_json_config(value: Any) -> None:
    input_files.config(
        b"2\n" + json.dumps({"student": "fake", "data": value, "teachers": [value], "loss": value}).encode()
    )


@pytest.mark.parametrize("target", ANSWERS)
@QUICK
@given(data=st.data())
def test_any_answer(target: str, data: st.DataObject) -> None:
    TARGETS[target](as_body(data.draw(wrong_in_one_place(VALID[target]) | JSON)))


@QUICK
@given(st.sampled_from(RESPONSES), st.binary(max_size=40), st.binary(max_size=40))
def test_any_response(start: bytes, header: bytes, rest: bytes) -> None:
    server_answers.response(start + rest)
    server_answers.response(start.replace(b"\n", b"\nRetry-After: " + header.replace(b"\n", b"") + b"\n", 1) + rest)


def test_the_answers_that_the_fuzzer_starts_from_are_accepted() -> None:
    for dialect in (PromptLogprobs(), Echo(), SGLang()):
        query = ScoreQuery("m", token_ids(PROMPT), token_ids(RESPONSE), 2)
        assert dialect.parse(VALID[dialect.name], query).ids.tolist() == RESPONSE
    given = ScoreQuery("m", token_ids(PROMPT), token_ids(RESPONSE), at_ids=np.array([[5, 6]] * 2))
    assert VllmTokens().parse(VALID["vllm_tokens"], given).logprobs.tolist() == [-1.0, -0.5]
    for name, form in server_answers.FORMS.items():
        assert isinstance(form.parse(VALID[name], make_request(), "m", 0), Rollout)
    assert served_models(VALID["models"], "u")[0].max_model_len == 4096


def test_a_defect_would_be_found() -> None:
    """The fuzz targets are no sieve with holes: what is too long, or of another kind, comes out of them."""
    with pytest.raises(AssertionError, match="a message of"):
        required.require_short(ValueError("x" * (LONGEST_MESSAGE + 1)))
    with pytest.raises(AssertionError):
        required.require_likely([0.5])


@pytest.mark.slow
def test_the_fuzzer_runs() -> None:
    pytest.importorskip("atheris")
    # In a process of its own: a fork of this one would count what all other tests hold as the target's memory.
    command = [sys.executable, run.__file__, "--seconds", "2", "--target", "models"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert (done.returncode, done.stdout.endswith("found nothing\n")) == (0, True), done.stdout[-2000:]
