"""The models and tokenizers of scorer `tinker`, and what is refused of them."""

from collections.abc import Sequence

import pytest

from builtin.tinker.fake_sdk import StatusError
from builtin.tinker.scorers import MODEL, ROOT, SAVED, Fake, opened, scorer, scores
from distillkit.errors import InputError
from distillkit.testing import make_context, make_teacher
from distillkit_builtin.tinker.scorer import TinkerScorer


@pytest.mark.parametrize(("model", "source"), [(MODEL, "base_model"), (SAVED, "model_path")])
async def test_a_model_is_a_base_model_or_weights_saved_for_a_sampler(fake: Fake, model: str, source: str) -> None:
    server = fake(lengths={MODEL: 4096})
    plugin = scorer(model)
    async with opened(plugin):
        assert plugin.context_length(make_context()) == 4095
        assert plugin.provenance()["base_model"] == MODEL
    assert server.clients[0][source] == model


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ("test/modle", r"model 'test/modle' is not at http://tinker.test"),
        ("tinker://run-1", "is no path of weights: tinker://RUN/sampler_weights/NAME"),
        ("tinker://run-1/weights/step-8", "is a checkpoint of training"),
        ("tinker://run-1/external_weights/final", "is a copy to download, which no server samples"),
    ],
)
def test_another_model_is_refused_before_a_client_exists(fake: Fake, model: str, message: str) -> None:
    server = fake()
    with pytest.raises(InputError, match=f"^teacher 'teacher': .*{message}"):
        scorer(model).check(make_context())
    assert not server.clients


def checked(model: str, tokenizer_model: str | None) -> tuple[TinkerScorer, Sequence[str]]:
    plugin = TinkerScorer(base_url=ROOT)
    plugin.bind(make_teacher(model=model, tokenizer_model=tokenizer_model))
    return plugin, plugin.check(make_context()).notes


def test_the_tokenizer_is_the_one_of_the_base_models_name(fake: Fake, tiny_model: str) -> None:
    fake(lengths={f"{tiny_model}:peft:4096": None}, base=tiny_model)
    for model in (f"{tiny_model}:peft:4096", SAVED):
        plugin, notes = checked(model, model)  # what a config holds that names no tokenizer
        assert len(notes) == 1
        assert plugin.tokenizer(make_context()).encode("a")


def test_another_tokenizer_than_the_base_models_is_told(fake: Fake, tiny_model: str) -> None:
    fake()
    _, notes = checked(MODEL, tiny_model)
    assert f"the server calls its base model {MODEL!r}" in notes[1]


@pytest.mark.parametrize(
    ("base", "message"),
    [
        (None, "set its tokenizer_model; the server does not say"),
        ("no/such", "names no tokenizer; set tokenizer_model"),
    ],
)
def test_a_tokenizer_that_cannot_be_had_is_to_be_named(fake: Fake, base: str | None, message: str) -> None:
    fake(base=base)
    plugin, _ = checked(SAVED, SAVED)
    with pytest.raises(InputError, match=message):
        plugin.tokenizer(make_context())


async def test_weights_that_are_not_there_are_refused_in_the_servers_words(fake: Fake) -> None:
    fake(refuses=StatusError(404, "no such checkpoint"))
    with pytest.raises(InputError, match=f"^teacher 'teacher': opening '{SAVED}': HTTP 404: no such checkpoint"):
        await scores(scorer(SAVED))
