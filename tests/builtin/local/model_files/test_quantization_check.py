"""What `check` says of models whose weights are kept in few bits, before they are loaded."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.model_families import random_model
from helpers.quantized_checkpoints import compressed
from helpers.tiny_models import write_tokenizer

from distillkit.errors import InputError
from distillkit.testing import make_context
from distillkit_builtin.local.device import Device
from distillkit_builtin.local.model.causal_lm import CausalLM
from distillkit_builtin.local.model.footprint import footprint
from distillkit_builtin.local.model_files import quantization as quantization_module
from distillkit_builtin.local.model_files.quantization import quantization_of
from distillkit_builtin.local.student import LocalStudent

pytestmark = pytest.mark.filterwarnings("ignore")
FOUR: dict[str, Any] = {"load_in_4bit": True}


def config(folder: Path, quantization: dict[str, Any] | None) -> str:
    random_model("llama").save_pretrained(folder)
    write_tokenizer(folder)
    if quantization is not None:
        path = folder / "config.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), "quantization_config": quantization}))
    return str(folder)


def check(source: str, **options: Any) -> None:
    LocalStudent(model=source, device="cpu", dtype="float32", **options).check(make_context())


@pytest.mark.parametrize(
    ("quantization", "options", "words"),
    [
        ({"quant_method": "gptq", "bits": 4}, {}, r"\(gptq\), .*: pip install optimum gptqmodel"),
        ({"quant_method": "awq", "bits": 4}, {}, r"\(awq\), and what reads .* not installed: pip install gptqmodel"),
        ({"quant_method": "quark", "export": {}}, {}, r"\(quark\), .*: pip install amd-quark"),
        ({"quant_method": "auto-round", "bits": 4}, {}, r"\(auto-round\), .*: pip install auto-round"),
        ({"quant_method": "quanto", "weights": "int8"}, {}, r"\(quanto\), .*: pip install optimum-quanto"),
        ({"quant_method": "aqlm"}, {}, r"\(aqlm\), and cannot be loaded here: .*pip install aqlm"),
        ({"quant_method": "spqr"}, {}, r"\(spqr\), and cannot be loaded here: .*GPU"),
        (
            {"quant_method": "hqq"},
            {},
            r"\(hqq\), which transformers .* cannot read; take the model that it was made of",
        ),
        ({"quant_method": "nvfp4"}, {}, r"\(nvfp4\), which transformers .* cannot read; take the model"),
        (
            {"quant_method": "runes"},
            {},
            r"\(runes\), which transformers .* does not know; take the model that it was made",
        ),
        ({"quant_method": "bitsandbytes", **FOUR}, {"lora_rank": 0}, r"lora_rank: 0 .* quantized \(bitsandbytes\)"),
        ({"quant_method": "bitsandbytes", "load_in_8bit": True}, {}, r"llm_int8_threshold to 0\.0"),
    ],
)
def test_check_says_what_cannot_be_done(
    quantization: dict[str, Any], options: dict[str, Any], words: str, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=words) as raised:
        check(config(tmp_path, quantization), **options)
    assert "\n" not in str(raised.value)
    assert len(str(raised.value)) - len(str(tmp_path)) <= 300


@pytest.mark.parametrize(
    ("quantization", "package"),
    [
        ({"quant_method": "bitsandbytes", **FOUR}, "bitsandbytes"),
        ({**compressed("float-quantized")}, "compressed-tensors"),
        ({"quant_method": "torchao", "quant_type": {"default": {}}}, "torchao"),
        ({"quant_method": "fp8", "weight_block_size": [128, 128]}, "accelerate"),
    ],
)
def test_check_names_the_package_that_is_missing(
    quantization: dict[str, Any], package: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(quantization_module, "find_spec", lambda name: None if name.startswith(package[:8]) else 1)
    source = config(tmp_path, quantization)
    with pytest.raises(InputError, match=f"what reads its weights is not installed: pip install {package}$"):
        quantization_of(source, torch.device("cpu"))


def test_weights_that_are_not_quantized_though_their_config_says_so(tmp_path: Path) -> None:
    source = config(tmp_path, {"quant_method": "bitsandbytes", **FOUR})
    with pytest.raises(InputError, match=r"q_proj\.weight in its files is not quantized"):
        CausalLM.load(source, Device(torch.device("cpu")), torch.float32, torch.float32)


def test_memory_is_that_of_the_bits(tmp_path: Path) -> None:
    sizes = []
    for name, quantization in (("plain", None), ("four", {"quant_method": "bitsandbytes", **FOUR})):
        sizes.append(footprint(config(tmp_path / name, quantization), torch.device("cpu"), "float32"))
    plain, four = sizes
    linear = plain.structure.linear_parameters
    assert plain.weight_bytes - four.weight_bytes == linear * 4 - linear // 2
    assert plain.training_bytes(4) - four.training_bytes(4) == 4 * linear - 4 * 4 * plain.structure.linear_ends
    assert "as bitsandbytes, computed in float32, on cpu" in four.describe()
