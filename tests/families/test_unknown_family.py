"""What no list of ours knows is computed as it should be, or refused: nothing hangs on a name."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import ClassVar

import pytest
import torch
from transformers import CONFIG_MAPPING, AutoConfig, AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM

from families import reference
from families.catalogue import FAMILIES
from families.tiny import write_family
from families.trial import Subjects, try_out
from families.trial_config import write_rows


class TomorrowConfig(LlamaConfig):
    """Of an architecture that nobody has heard of."""

    model_type: ClassVar[str] = "tomorrow"


class TomorrowForCausalLM(LlamaForCausalLM):
    """A causal language model."""

    config_class = TomorrowConfig


class YesterdayConfig(LlamaConfig):
    """Of another one."""

    model_type: ClassVar[str] = "yesterday"


class YesterdayForCausalLM(LlamaForCausalLM):
    """Is none, whatever it says: what stands behind a token changes its hidden states."""

    config_class = YesterdayConfig

    def __init__(self, config: YesterdayConfig) -> None:
        super().__init__(config)
        self.model.register_forward_hook(_with_what_follows)


def _with_what_follows(module: torch.nn.Module, inputs: object, output: object) -> object:
    hidden = output.last_hidden_state  # type: ignore[attr-defined]
    output.last_hidden_state = hidden + hidden.mean(dim=1, keepdim=True)  # type: ignore[attr-defined]
    return output


Write = Callable[[type[LlamaConfig], type[LlamaForCausalLM]], Subjects]


@pytest.fixture
def subjects(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Write]:
    """Student and teacher of a class that transformers is told of."""

    def write(config: type[LlamaConfig], model: type[LlamaForCausalLM]) -> Subjects:
        AutoConfig.register(config.model_type, config, exist_ok=True)
        AutoModelForCausalLM.register(config, model, exist_ok=True)
        monkeypatch.setattr(reference.transformers, model.__name__, model, raising=False)
        folders = [write_family(FAMILIES["llama"], tmp_path / str(seed), seed=seed) for seed in range(2)]
        for folder in folders:
            path = Path(folder) / "config.json"
            named = {"model_type": config.model_type, "architectures": [model.__name__]}
            path.write_text(json.dumps({**json.loads(path.read_text(encoding="utf-8")), **named}), encoding="utf-8")
        write_rows(tmp_path)
        return Subjects.load(tmp_path, *folders)

    yield write
    for kind in (TomorrowConfig, YesterdayConfig):
        CONFIG_MAPPING._extra_content.pop(kind.model_type, None)
        AutoModelForCausalLM._model_mapping._extra_content.pop(kind, None)


def test_an_architecture_that_nobody_knows_is_exact(subjects: Write) -> None:
    trial = try_out(subjects(TomorrowConfig, TomorrowForCausalLM), "lora")
    assert (trial.verdict, trial.export_verdict, trial.remark) == ("exact", "exact", None)


def test_one_that_is_not_causal_is_refused(subjects: Write) -> None:
    trial = try_out(subjects(YesterdayConfig, YesterdayForCausalLM), "lora")
    assert trial.verdict == "refused"
    assert "YesterdayForCausalLM" in str(trial.refused)
