from collections.abc import Mapping, Sequence

import pytest

from distillkit.errors import InputError
from distillkit.testing import ByteTokenizer
from distillkit.tokenizer import first_difference, require_compatible, tokenizer_fingerprint


class Changed(ByteTokenizer):
    def __init__(self, tokens: Mapping[str, int] = {}) -> None:
        self.changed = {**super().vocabulary(), **tokens}

    def vocabulary(self) -> Mapping[str, int]:
        return self.changed


class UpperCase(ByteTokenizer):
    def encode(self, text: str) -> list[int]:
        return super().encode(text.upper())


class PlainTurnEnd(ByteTokenizer):
    def special_tokens(self) -> Mapping[str, int]:
        return {"<|im_start|>": 256}

    def vocabulary(self) -> Mapping[str, int]:
        return {**super().vocabulary(), "<|im_end|>": 257}


class Missing(ByteTokenizer):
    def vocabulary(self) -> Mapping[str, int]:
        return {token: index for token, index in super().vocabulary().items() if index != 66}


class ShortProbe(ByteTokenizer):
    def encode(self, text: str) -> list[int]:
        return super().encode(text)[:-1]


def test_the_same_and_a_larger_vocabulary_are_compatible() -> None:
    assert first_difference(ByteTokenizer(), ByteTokenizer()) is None
    assert first_difference(ByteTokenizer(), Changed({"<more>": 300})) is None


@pytest.mark.parametrize(
    ("teacher", "message"),
    [
        (Changed({"<0x41>": 66}), "token '<0x41>' is id 65 in the student's vocabulary and id 66 in the teacher's"),
        (Missing(), "token '<0x42>' is id 66 in the student's vocabulary and not in the teacher's"),
        (PlainTurnEnd(), "'<|im_end|>' (id 257) is a special token for the student"),
        (UpperCase(), "token 1 is 'h' for the student, 'H' for the teacher"),
        (ShortProbe(), "a text is encoded differently"),
    ],
)
def test_the_first_difference_is_named(teacher: ByteTokenizer, message: str) -> None:
    with pytest.raises(InputError) as caught:
        require_compatible(ByteTokenizer(), teacher, "big")
    assert message in str(caught.value)
    assert str(caught.value).startswith("teacher 'big' cannot score the student's token ids")


def test_the_fingerprint_changes_with_what_ids_mean() -> None:
    tokenizers: Sequence[ByteTokenizer] = [ByteTokenizer(), Changed({"<0x41>": 300}), UpperCase(), PlainTurnEnd()]
    assert len({tokenizer_fingerprint(tokenizer) for tokenizer in tokenizers}) == 4
    assert tokenizer_fingerprint(ByteTokenizer()) == tokenizer_fingerprint(ByteTokenizer())
