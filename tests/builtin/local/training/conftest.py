"""A model whose head is its own."""

import pytest
from helpers import tiny_models


@pytest.fixture(scope="session")
def untied_model(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A head of its own, while the Llama's is tied to its embeddings."""
    return tiny_models.write_model(tmp_path_factory.mktemp("untied"), family="qwen3", seed=3)
