import pytest
from pydantic import ValidationError

from distillkit import DataError
from distillkit_builtin.datasets.hf import HuggingFaceDataset
from distillkit_builtin.datasets.hf_address import HubAddress, parse_hub_address


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("hf://squad", HubAddress("squad")),
        ("hf://squad#train", HubAddress("squad", None, "train")),
        ("hf://openai/gsm8k", HubAddress("openai/gsm8k")),
        ("hf://openai/gsm8k#test", HubAddress("openai/gsm8k", None, "test")),
        ("hf://openai/gsm8k/main", HubAddress("openai/gsm8k", "main")),
        ("hf://wikimedia/wikipedia/20231101.en#train", HubAddress("wikimedia/wikipedia", "20231101.en", "train")),
        ("hf://org/name#train.clean.100", HubAddress("org/name", None, "train.clean.100")),
        ("hf://datasets/name", HubAddress("datasets/name")),  # a user may be called that
    ],
)
def test_an_address_names_dataset_config_and_split(text: str, address: HubAddress) -> None:
    assert parse_hub_address(text) == address
    assert str(address) == text


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "hf://",
            "'hf://' is no address of a dataset: hf://org/name, hf://org/name/config, either with #split behind it",
        ),
        ("hf://org/", "is no address of a dataset"),
        ("hf:///name", "is no address of a dataset"),
        ("hf://org/name/config/more", "is no address of a dataset"),
        ("hf://../name", "is no address of a dataset"),
        ("hf://org/name/..", "is no address of a dataset"),
        ("hf://org/na me", "is no address of a dataset"),
        ("hf://org/naïve", "is no address of a dataset"),
        ("hf://org/" + "x" * 1000, "is no address of a dataset"),
        ("hf://datasets/openai/gsm8k", "leave `datasets/` out"),
        ("hf://openai/gsm8k@main", r"a revision is an option of its own: `data.source: \{name: hf, revision: ...\}`"),
        ("hf://org/name#", "'' is no name of a split"),
        (
            "hf://org/name#train[:100]",
            "is no name of a split; one whole split is read, and data.max_rows takes its first",
        ),
        ("hf://org/name#train+test", "is no name of a split; one whole split is read"),
        ("hf://org/name#a#b", "is no name of a split"),
    ],
)
def test_what_is_no_address_is_said_where_the_config_is_read(text: str, message: str) -> None:
    with pytest.raises(DataError, match=message) as caught:
        parse_hub_address(text)
    assert len(str(caught.value)) < 400
    with pytest.raises(ValidationError, match=message):
        HuggingFaceDataset(path=text)
