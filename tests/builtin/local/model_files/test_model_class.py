import ast
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers import tiny_models
from helpers.tiny_wrappers import ARCHITECTURES, wrapper_config, write_wrapper
from transformers import (
    CONFIG_MAPPING,
    BartConfig,
    CLIPConfig,
    IdeficsConfig,
    LlamaConfig,
    PreTrainedConfig,
    Qwen3Config,
    ViTConfig,
    WhisperConfig,
)
from transformers.models.auto.modeling_auto import (
    MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
    MODEL_FOR_MULTIMODAL_LM_MAPPING_NAMES,
)

import distillkit_builtin.local
from distillkit.errors import InputError
from distillkit_builtin.local.fast.self_check import verified_backbone
from distillkit_builtin.local.memory.training_trace import Training, traced_bytes
from distillkit_builtin.local.model.causal_lm import CausalLM
from distillkit_builtin.local.model.footprint import footprint, model_on_meta, model_structure
from distillkit_builtin.local.model_files.model_class import (
    auto_class,
    backbone,
    empty_model,
    language_model,
    text_decoder,
    text_parameters,
)
from distillkit_builtin.local.packing.packing_proof import require_packable

Load = Callable[..., CausalLM]
QWEN3 = {**tiny_models.SMALL, "tie_word_embeddings": True}


@pytest.mark.parametrize("kind", ARCHITECTURES)
def test_the_class_that_the_config_names_is_loaded(kind: str) -> None:
    assert type(empty_model(wrapper_config(kind))).__name__ == ARCHITECTURES[kind]


def test_a_config_that_names_no_class_is_of_a_model_for_text_where_there_is_one() -> None:
    config = wrapper_config("llama4")
    config.architectures = None
    assert type(empty_model(config)).__name__ == "Llama4ForCausalLM"


@pytest.mark.parametrize("kind", ["llama", *ARCHITECTURES])
def test_text_goes_through_the_text_parameters_and_no_others(kind: str) -> None:
    """The reference is the gradient: what has one has computed the logits."""
    config = LlamaConfig(**tiny_models.SMALL) if kind == "llama" else wrapper_config(kind)
    torch.manual_seed(0)
    model = auto_class(config).from_config(config)
    logits = language_model(model)(input_ids=torch.arange(3, 40)[None], use_cache=False).logits
    logits.square().mean().backward()
    moved = {name for name, p in model.named_parameters() if p.grad is not None and p.grad.abs().sum() > 0}
    experts = {name for name in text_parameters(model) if "experts" in name}  # some get no token
    assert moved | experts == text_parameters(model).keys()
    assert (moved == {name for name, _ in model.named_parameters()}) == (kind == "llama")


@pytest.mark.parametrize("kind", ARCHITECTURES)
def test_the_text_decoder_gives_what_the_head_reads(kind: str) -> None:
    config = wrapper_config(kind)
    torch.manual_seed(0)
    model = auto_class(config).from_config(config).eval()
    ids = torch.arange(3, 40)[None]
    with torch.no_grad():
        hidden = text_decoder(model)(input_ids=ids, use_cache=False).last_hidden_state
        theirs = language_model(model)(input_ids=ids, use_cache=False).logits
        assert torch.allclose(language_model(model).get_output_embeddings()(hidden), theirs, atol=1e-5)
        assert torch.allclose(backbone(model)(input_ids=ids, use_cache=False).last_hidden_state, hidden, atol=1e-5)


def test_what_a_classifier_would_lack_is_said_though_its_embeddings_could_stand_for_a_head(tmp_path: Path) -> None:
    Qwen3Config(**QWEN3, architectures=["Qwen3ForSequenceClassification"]).save_pretrained(tmp_path)
    with pytest.raises(InputError, match="says that it is a Qwen3ForSequenceClassification, which computes something"):
        model_on_meta(str(tmp_path))


@pytest.mark.parametrize("names", [None, [], ["Qwen3ForCausalLM"], ["Qwen3Model"], ["OfTheirOwnForCausalLM"]])
def test_other_names_are_loaded_as_what_transformers_has(names: list[str] | None) -> None:
    assert type(empty_model(Qwen3Config(**QWEN3, architectures=names))).__name__ == "Qwen3ForCausalLM"


SIZES: dict[str, Any] = {"d_model": 32, "encoder_layers": 1, "decoder_layers": 1}
REFUSED: dict[str, tuple[PreTrainedConfig, str]] = {
    "encoder-decoder": (
        BartConfig(**SIZES, architectures=["BartForConditionalGeneration"]), r"it is an encoder-decoder \(bart\)"
    ),
    "of sound": (WhisperConfig(**SIZES), r"it is an encoder-decoder \(whisper\)"),
    "of pictures": (ViTConfig(architectures=["ViTForImageClassification"]), "transformers has no 'vit' model that"),
    "of both": (CLIPConfig(), "transformers has no 'clip' model that"),
}  # fmt: skip


@pytest.mark.parametrize("kind", REFUSED)
def test_what_computes_no_next_tokens_is_refused(kind: str) -> None:
    config, message = REFUSED[kind]
    with pytest.raises(InputError, match=message):
        empty_model(config)


def test_the_decoder_of_an_encoder_decoder_alone_is_a_model() -> None:
    config = BartConfig(**SIZES, decoder_attention_heads=4, architectures=["BartForCausalLM"])
    assert type(empty_model(config)).__name__ == "BartForCausalLM"


def test_a_missing_package_is_named_with_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*args: Any, **kwargs: Any) -> Any:
        raise ImportError(
            "TimmWrapperModel requires the PIL library but it was not found in your environment. You can install it "
            "with pip: `pip install pillow`. Please note that you may need to restart your runtime.\n"
            "TimmWrapperModel requires the timm library but it was not found in your environment. And so on.\n"
        )

    config = LlamaConfig(**tiny_models.SMALL)
    monkeypatch.setattr(auto_class(config), "from_config", fail)
    with pytest.raises(InputError) as caught:
        empty_model(config)
    assert str(caught.value).endswith("it needs pillow and timm, which are not installed: pip install pillow timm")
    assert "\n" not in str(caught.value)


SAMPLE = (
    *("afmoe", "bart", "bert", "bloom", "deepseek_v3", "gemma3n", "gemma4", "gpt_oss", "llama4", "modernbert-decoder"),
    *("musicgen", "qwen3_moe", "reformer", "xlnet", "blip", "florence2", "idefics", "llava", "qwen2_5_omni"),
    *("qwen3_vl", "t5gemma2", "voxtral_realtime"),
)
"""Of 290 kinds."""


@pytest.mark.parametrize("kind", SAMPLE)
def test_every_kind_of_transformers_is_a_model_or_a_sentence(kind: str, tmp_path: Path) -> None:
    config = CONFIG_MAPPING[kind]()
    names = {**MODEL_FOR_CAUSAL_LM_MAPPING_NAMES, **MODEL_FOR_MULTIMODAL_LM_MAPPING_NAMES}[kind]
    config.architectures = [names] if isinstance(names, str) else list(names[:1])
    config.save_pretrained(tmp_path)
    try:
        structure = model_structure(str(tmp_path))
    except InputError as error:
        said = str(error).replace(str(tmp_path), "model")
        assert "\n" not in said
        assert len(said) < 400
    else:
        assert 0 < structure.text_parameters <= structure.parameters


def test_a_model_that_wants_a_picture_is_refused_by_its_config(tmp_path: Path) -> None:
    config = IdeficsConfig(**tiny_models.SMALL, architectures=["IdeficsForVisionText2Text"])
    config.save_pretrained(tmp_path)
    with pytest.raises(InputError, match="a IdeficsForVisionText2Text cannot be computed from a text alone: Exactly 1"):
        model_structure(str(tmp_path))


def test_towers_are_weights_and_not_trained(tmp_path: Path) -> None:
    source = write_wrapper(tmp_path, "mistral3")
    structure = model_structure(source)
    towers = structure.parameters - structure.text_parameters
    assert towers == sum(
        p.numel() for name, p in model_on_meta(source).named_parameters() if "language" not in name
    ) - (tiny_models.SMALL["vocab_size"] * tiny_models.SMALL["hidden_size"])
    size = footprint(source, torch.device("cpu"), "bfloat16")
    assert size.training_bytes(0, samples=False) == 16 * structure.text_parameters + 4 * towers
    assert size.weight_bytes == 2 * structure.parameters


def test_layers_that_are_not_alike_are_counted_one_by_one(tmp_path: Path) -> None:
    """Released Gemma 4 models have wider heads in their layers with full attention."""
    config = wrapper_config("gemma4")
    config.save_pretrained(tmp_path)
    structure = model_structure(str(tmp_path))
    each = [(layer.num_attention_heads, layer.num_key_value_heads, layer.head_dim)
            for layer in config.get_text_config().per_layer_config]  # fmt: skip
    assert len({head_dim for *_, head_dim in each}) == 2
    assert structure.attention_outputs == sum(heads * head_dim for heads, _, head_dim in each)
    assert structure.cached == sum(2 * kept * head_dim for _, kept, head_dim in each)


def test_what_its_own_code_runs_into_is_an_error_of_the_input(
    tmp_path: Path, load: Load, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = tiny_models.write_model(tmp_path)

    def fail(self: CausalLM) -> None:
        raise RuntimeError("split_with_sizes expects split_sizes to sum exactly to 4\nand more")

    monkeypatch.setattr(CausalLM, "require_known_head", fail)
    with pytest.raises(InputError, match="LlamaForCausalLM cannot be computed by the local backend: RuntimeError: spl"):
        load(source)


def handlers(path: Path) -> Iterator[bool]:
    """Of each handler in a file that names MODEL_ERRORS: whether InputError is raised again before it."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Try):
            passed = False
            for handler in node.handlers:
                caught = "" if handler.type is None else ast.unparse(handler.type)
                if "MODEL_ERRORS" in caught:
                    yield passed
                passed = passed or ("InputError" in caught and ast.unparse(handler.body[0]) == "raise")


def test_what_is_meant_for_the_user_is_never_taken_for_a_models_own_error() -> None:
    folder = Path(distillkit_builtin.local.__file__).parent
    found = {path.name: list(handlers(path)) for path in folder.rglob("*.py")}
    assert {name for name, tries in found.items() if not all(tries)} == set()
    assert sum(map(len, found.values())) >= 9


def test_an_input_error_of_a_computation_reaches_the_user(
    load: Load, tiny_model: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(self: CausalLM, *args: Any, **options: Any) -> torch.Tensor:
        raise InputError("serve it over HTTP")

    causal_lm = load(tiny_model)
    monkeypatch.setattr(CausalLM, "hidden_states", refuse)
    with pytest.raises(InputError, match="serve it over HTTP"):
        verified_backbone(causal_lm)
    with pytest.raises(InputError, match="serve it over HTTP"):
        require_packable(causal_lm)
    with pytest.raises(InputError, match="no linear layer of LlamaForCausalLM is called 'q_prj'"):
        traced_bytes(Training(tiny_model, torch.float32, 4, False, False, target_modules=("q_prj",)), [])
