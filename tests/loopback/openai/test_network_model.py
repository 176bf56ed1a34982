"""A real, tiny transformer behind the loopback server, with adapters and other weights."""

from pathlib import Path
from typing import Any

import pytest

from distillkit.types import SamplingParams
from loopback.openai.wire import PROMPT, SCORING, Serve, complete, post, refused

torch = pytest.importorskip("torch")


def reference(source: str, ids: list[int], adapter: str | None = None) -> Any:
    """[len(ids) - 1] logprobs by transformers and PEFT alone."""
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(source, dtype=torch.float32)
    if adapter is not None:
        model = PeftModel.from_pretrained(model, adapter)
    with torch.no_grad():
        logprobs = torch.log_softmax(model(torch.tensor([ids[:-1]])).logits[0], dim=1)
    return logprobs.gather(1, torch.tensor(ids[1:])[:, None])[:, 0].tolist()


def trained_adapter(source: str, folder: Path, seed: int) -> str:
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    torch.manual_seed(seed)
    config = LoraConfig(r=4, lora_alpha=8, target_modules="all-linear", task_type="CAUSAL_LM")
    model = get_peft_model(AutoModelForCausalLM.from_pretrained(source), config)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_" in name:
                parameter.normal_(0.0, 0.3)
    model.save_pretrained(folder)
    return str(folder)


def test_a_real_model_scores_and_samples(serve: Serve, real: Any, tiny_model: str) -> None:
    server = serve(real)
    choice = complete(server, prompt=PROMPT, max_tokens=6, seed=3, logprobs=2, prompt_logprobs=2, return_token_ids=True)
    ids = [*PROMPT, *choice["token_ids"]]
    truth = reference(tiny_model, ids)
    told = [entry[str(index)]["logprob"] for entry, index in zip(choice["prompt_logprobs"][1:], ids[1:], strict=False)]
    assert [*told, *choice["logprobs"]["token_logprobs"]] == pytest.approx(truth, abs=1e-5)
    for entry in choice["prompt_logprobs"][1:]:
        ranked = sorted(entry.values(), key=lambda each: each["rank"])
        assert [each["rank"] for each in ranked[:2]] == [1, 2]
        assert ranked[0]["logprob"] >= ranked[1]["logprob"] >= ranked[-1]["logprob"]


def test_adapters_of_a_real_model(serve: Serve, real: Any, tiny_model: str, tmp_path: Path) -> None:
    server = serve(real)
    paths = {name: trained_adapter(tiny_model, tmp_path / name, seed) for seed, name in enumerate(("one", "two"))}

    def scores(model: str | None) -> list[float]:
        entries = complete(server, model=model, **SCORING)["prompt_logprobs"][1:]
        return [entry[str(index)]["logprob"] for entry, index in zip(entries, PROMPT[1:], strict=True)]

    base = scores(None)
    for name, path in paths.items():
        assert post(server, "/v1/load_lora_adapter", lora_name=name, lora_path=path).status_code == 200
    for name, path in paths.items():
        assert scores(name) == pytest.approx(reference(tiny_model, PROMPT, path), abs=1e-5)
        assert max(abs(a - b) for a, b in zip(scores(name), base, strict=True)) > 0.1
    assert scores(None) == base
    post(server, "/v1/unload_lora_adapter", lora_name="one")
    assert scores("two") == pytest.approx(reference(tiny_model, PROMPT, paths["two"]), abs=1e-5)
    sampled = complete(server, model="two", prompt=PROMPT, max_tokens=5, seed=1, logprobs=0, return_token_ids=True)
    truth = reference(tiny_model, [*PROMPT, *sampled["token_ids"]], paths["two"])[4:]
    assert sampled["logprobs"]["token_logprobs"] == pytest.approx(truth, abs=1e-5)


@pytest.mark.parametrize("broken", ["no tensors", "other shapes"])
def test_an_adapter_that_does_not_fit_leaves_the_model_as_it_was(
    serve: Serve, real: Any, tiny_model: str, tmp_path: Path, broken: str
) -> None:
    server = serve(real)
    before = complete(server, **SCORING)
    path = Path(trained_adapter(tiny_model, tmp_path / "bad", 0))
    if broken == "no tensors":
        (path / "adapter_model.safetensors").write_bytes(b"nothing")
    else:
        config = path / "adapter_config.json"
        config.write_text(config.read_text().replace('"r": 4', '"r": 2'))
    for _ in range(2):
        refusal = refused(post(server, "/v1/load_lora_adapter", lora_name="bad", lora_path=str(path)))
        assert refusal[:2] == (500, "InternalServerError")
        assert complete(server, **SCORING) == before
    good = trained_adapter(tiny_model, tmp_path / "good", 1)
    assert post(server, "/v1/load_lora_adapter", lora_name="good", lora_path=good).status_code == 200
    entries = complete(server, model="good", **SCORING)["prompt_logprobs"][1:]
    told = [entry[str(index)]["logprob"] for entry, index in zip(entries, PROMPT[1:], strict=True)]
    assert told == pytest.approx(reference(tiny_model, PROMPT, good), abs=1e-5)
    # Nothing is left of the two that failed.
    assert real.adapters == ("adapter3",)


def test_an_adapter_that_was_unloaded_is_forgotten(serve: Serve, real: Any, tiny_model: str, tmp_path: Path) -> None:
    server, path = serve(real), trained_adapter(tiny_model, tmp_path / "one", 0)
    for name in ("a", "b", "c"):
        assert post(server, "/v1/load_lora_adapter", lora_name=name, lora_path=path).status_code == 200
    server.stop()
    server.start()
    complete(server, **SCORING)
    assert len(real.adapters) == 1


def test_a_model_with_a_tower_is_loaded_as_the_class_that_its_config_names(tmp_path: Path) -> None:
    from helpers.tiny_wrappers import write_wrapper
    from transformers import AutoModelForMultimodalLM

    from distillkit_loopback.openai.network_model import NetworkModel

    source, ids = write_wrapper(tmp_path / "wrapper", "mistral3"), [1, 5, 9, 30, 7]
    model = NetworkModel.load(source)
    whole = AutoModelForMultimodalLM.from_pretrained(source, dtype=torch.float32).eval()
    with torch.no_grad():
        logprobs = torch.log_softmax(whole(input_ids=torch.tensor([ids[:-1]])).logits[0, 1:], dim=1)
    expected = [row[index].item() for row, index in zip(logprobs, ids[2:], strict=True)]
    assert model.score(ids, 2, 3).logprobs.tolist() == pytest.approx(expected, abs=1e-5)
    assert 1 <= len(model.sample(ids, 0, SamplingParams(max_tokens=3)).ids) <= 3
