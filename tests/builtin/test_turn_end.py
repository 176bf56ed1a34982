"""What ends a turn, read from chat templates and configs of the kinds that are around."""

import json
from pathlib import Path
from typing import Any

import pytest
from helpers.tiny_models import CHATML, SPECIAL, VOCABULARY, write_model, write_tokenizer

from distillkit.errors import InputError
from distillkit.tokenizer import TurnEnds
from distillkit_builtin.hf_tokenizer import HFTokenizer

MORE = ("<end_of_turn>", "<|eot_id|>", "</s>", "<|user|>")
GEMMA, EOT, S, USER = range(VOCABULARY, VOCABULARY + 4)
ENDOFTEXT, IM_START, IM_END = range(3)
ALL = "{% for message in messages %}"
TEMPLATES = {
    "chatml": (CHATML, IM_END),
    "a newline behind the end, as Gemma has it": (
        ALL + "<|im_start|>{{ message.role }}\n{{ message.content | trim }}<end_of_turn>\n{% endfor %}",
        GEMMA,
    ),
    "no newline, as Llama 3 has it": (
        ALL + "{{ message.role }}\n\n{{ message.content | trim }}<|eot_id|>{% endfor %}",
        EOT,
    ),
    "white space before the end, as Llama 2 has it": (
        ALL + "{% if message.role == 'user' %}[INST] {{ message.content }} [/INST]"
        "{% else %} {{ message.content }} {{ '</s>' }}{% endif %}{% endfor %}",
        S,
    ),
    "an end behind the last answer alone": (
        ALL + "{{ message.role }}: {{ message.content }}{% if loop.last %}<|im_end|>{% endif %}\n{% endfor %}",
        IM_END,
    ),
    "thoughts before the answer, as Qwen3 has it": (
        ALL + "<|im_start|>{{ message.role }}\n{% if message.role == 'assistant' %}<think>\n\n</think>\n\n{% endif %}"
        "{{ message.content }}<|im_end|>\n{% endfor %}",
        IM_END,
    ),
    "a system message is needed": (
        "{% if messages[0].role != 'system' %}{{ raise_exception('no system message') }}{% endif %}" + CHATML,
        IM_END,
    ),
    "a system message is refused": (
        "{% if messages[0].role == 'system' %}{{ raise_exception('a system message') }}{% endif %}" + CHATML,
        IM_END,
    ),
    "plain text": (ALL + "### {{ message.role }}\n{{ message.content }}\n\n{% endfor %}", None),
    "answers are refused": (
        ALL
        + "{% if message.role == 'assistant' %}{{ raise_exception('no answers') }}{% endif %}<|im_end|>{% endfor %}",
        None,
    ),
    "answers are left out": (
        ALL + "{% if message.role == 'user' %}{{ message.content }}<|im_end|>{% endif %}{% endfor %}",
        None,
    ),
    "the next role's token ends a turn, as GLM has it": (
        ALL + "<|{{ message.role }}|>{{ message.content }}{% endfor %}",
        None,
    ),
    "nothing but a role's token before": (ALL + "<|im_start|>{{ message.content }}{% endfor %}", None),
}


@pytest.mark.parametrize(("template", "end"), TEMPLATES.values(), ids=TEMPLATES.keys())
def test_the_template_shows_what_ends_an_answer(tmp_path: Path, template: str, end: int | None) -> None:
    write_tokenizer(tmp_path, eos="<|endoftext|>", template=template, more_special=MORE)
    assert HFTokenizer.load(str(tmp_path)).turn_ends({}) == TurnEnds(end, (ENDOFTEXT,))


def test_options_of_the_template_count(tmp_path: Path) -> None:
    template = ALL + "{{ message.content }}{{ '<|eot_id|>' if short else '<|im_end|>' }}{% endfor %}"
    write_tokenizer(tmp_path, template=template, more_special=MORE)
    tokenizer = HFTokenizer.load(str(tmp_path))
    assert (tokenizer.turn_ends({}).template, tokenizer.turn_ends({"short": True}).template) == (IM_END, EOT)
    with pytest.raises(InputError, match="tokenize would change how distillkit renders"):
        tokenizer.turn_ends({"tokenize": False})


def test_an_end_that_is_no_special_token_is_seen_where_it_is_an_eos_id(tmp_path: Path) -> None:
    write_tokenizer(tmp_path, eos="<|endoftext|>", template=ALL + "{{ message.content }}~{% endfor %}")
    tilde = HFTokenizer.load(str(tmp_path)).encode("~")
    assert HFTokenizer.load(str(tmp_path)).turn_ends({}).template is None
    (tmp_path / "generation_config.json").write_text(json.dumps({"eos_token_id": tilde}), encoding="utf-8")
    assert HFTokenizer.load(str(tmp_path)).turn_ends({}) == TurnEnds(tilde[0], (ENDOFTEXT, *tilde))


@pytest.mark.parametrize(
    ("generation", "config", "eos"),
    [
        (None, None, (IM_END,)),
        ({"eos_token_id": 0}, None, (IM_END, ENDOFTEXT)),
        ({"eos_token_id": [2, 0]}, {"eos_token_id": 1}, (IM_END, ENDOFTEXT, IM_START)),
        ({}, {"eos_token_id": [0, 2]}, (IM_END, ENDOFTEXT)),
        ({"eos_token_id": None}, {"text_config": {"eos_token_id": [1]}}, (IM_END, IM_START)),
        ({"eos_token_id": -1}, {"eos_token_id": 100_000}, (IM_END,)),  # none, and none of this tokenizer's
    ],
)
def test_eos_ids_are_those_of_the_tokenizer_and_of_both_configs(
    tmp_path: Path, generation: Any, config: Any, eos: tuple[int, ...]
) -> None:
    write_tokenizer(tmp_path)
    for name, content in (("generation_config.json", generation), ("config.json", config)):
        if content is not None:
            (tmp_path / name).write_text(json.dumps({"model_type": "llama", **content}), encoding="utf-8")
    assert HFTokenizer.load(str(tmp_path)).eos_ids == eos


def test_a_tokenizer_from_elsewhere_has_the_eos_ids_of_the_model(tmp_path: Path) -> None:
    write_tokenizer(tmp_path / "tokenizer")
    model = write_model(tmp_path / "model", eos="<|endoftext|>")
    assert HFTokenizer.load(str(tmp_path / "tokenizer"), model).eos_ids == (IM_END, ENDOFTEXT)


@pytest.mark.parametrize("content", ['{"eos_token_id": "</s>"}', '{"eos_token_id": [true]}', "{"])
def test_a_config_that_names_no_id_is_refused(tmp_path: Path, content: str) -> None:
    write_tokenizer(tmp_path)
    (tmp_path / "generation_config.json").write_text(content, encoding="utf-8")
    with pytest.raises(InputError, match=r"generation_config\.json"):
        HFTokenizer.load(str(tmp_path))


def test_what_the_helper_writes() -> None:
    assert SPECIAL == ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
