"""All decoder layers share one compiled program: where each had its own, PyTorch gives up after eight."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers import tiny_models
from helpers.distribution_losses import chunked, distribution_batch
from helpers.explicit_attention import attention_in_the_place_of
from torch import Tensor, nn
from torch.nn import functional
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import AutoConfig, AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM

import distillkit
from builtin.local.training.sampled_batches import PLAIN
from distillkit import RunConfig
from distillkit.arrays import token_ids
from distillkit.errors import InputError
from distillkit_builtin.local.device import Device
from distillkit_builtin.local.inference.scoring import score_logprobs
from distillkit_builtin.local.memory.training_sizes import Passes
from distillkit_builtin.local.memory.training_trace import Training
from distillkit_builtin.local.memory.work import Work
from distillkit_builtin.local.model.causal_lm import CausalLM, PromptAndResponse
from distillkit_builtin.local.model.footprint import footprint
from distillkit_builtin.local.model.sharding import full_tensor
from distillkit_builtin.local.packing import compiled_layers
from distillkit_builtin.local.packing.packed_attention import ATTENTION
from distillkit_builtin.local.training.activation_checkpointing import checkpoint_activations
from distillkit_builtin.local.training.policy import Policy
from distillkit_builtin.local.training.trainer import Trainer

LAYERS = 10
WORK = Work(1, 1, 0, 200, 57)


def attend(module: nn.Module, query: Tensor, key: Tensor, value: Tensor, *args: object, **kwargs: object) -> object:
    """Attention that a compiler can read on the CPU, which that of packed sequences is not there."""
    mixed = functional.scaled_dot_product_attention(query, key, value, is_causal=True, enable_gqa=True)
    return mixed.transpose(1, 2), None


@pytest.fixture(autouse=True)
def _attention_that_compiles() -> Iterator[None]:
    """Counts from nothing, over attention that can be compiled here."""
    with attention_in_the_place_of(ATTENTION) as put:
        put(attend)
        torch._dynamo.reset()
        torch._dynamo.utils.counters.clear()
        yield
    torch._dynamo.reset()


@pytest.fixture
def causal_lm() -> CausalLM:
    """As deep as no other model of these tests."""
    config = LlamaConfig(
        vocab_size=300, hidden_size=16, intermediate_size=24, num_hidden_layers=LAYERS, num_attention_heads=2,
        num_key_value_heads=1, max_position_embeddings=128,
    )  # fmt: skip
    model = LlamaForCausalLM(config).eval().requires_grad_(False)
    return CausalLM(model, Device(torch.device("cpu")), torch.float32)


def test_sharded_layers_are_compiled_once_too(causal_lm: CausalLM, one_rank: None) -> None:
    policy = Policy.full(causal_lm)
    policy.packs = True
    policy.shard(1)
    policy.compile("eager")
    train_on_rows_of_three_lengths(policy)
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == 1


@pytest.mark.parametrize("shares", [False, True])
def test_compiled_layers_recompute_their_activations_where_that_is_asked_for(
    causal_lm: CausalLM, one_rank: None, shares: bool
) -> None:
    graphs: list[torch.fx.GraphModule] = []

    def compiler(graph: torch.fx.GraphModule, inputs: object) -> Callable[..., object]:
        graphs.append(graph)
        return graph.forward

    policy = Policy.full(causal_lm)
    checkpoint_activations(causal_lm.model)
    policy.packs = True
    if shares:
        policy.shard(1)
    policy.compile(compiler)
    with policy.training():
        train_on_rows_of_three_lengths(policy)
    assert graphs
    assert all("checkpoint" in str(graph.graph) for graph in graphs)


def test_a_teacher_on_the_students_base_computes_as_before(causal_lm: CausalLM) -> None:
    items = [PromptAndResponse(token_ids(np.arange(p) + 5), token_ids(np.arange(6) + 9)) for p in (20, 23, 31)]
    before = score_logprobs(causal_lm, items)[0]  # which share a beginning, so that a cache is used
    unshared = causal_lm.response_logprobs(items)
    policy = Policy.lora(causal_lm, 4, 8, 0.0, 0)
    policy.packs = True
    policy.compile("eager")
    train_on_rows_of_three_lengths(policy)
    with causal_lm.without_adapter():
        assert torch.equal(score_logprobs(causal_lm, items)[0], before)
        assert torch.allclose(causal_lm.response_logprobs(items), unshared)
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == 1


@pytest.mark.parametrize("kind", [Policy.full, lambda causal_lm: Policy.lora(causal_lm, 4, 8, 0.0, 0)])
def test_layers_are_compiled_once_for_all_of_them_and_for_every_length(
    causal_lm: CausalLM, kind: Callable[[CausalLM], Policy]
) -> None:
    policy = kind(causal_lm)
    policy.packs = True
    policy.compile("eager")  # reads the layers as ever, and generates no code
    train_on_rows_of_three_lengths(policy)
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == 1


def test_compiling_is_refused_where_it_cannot_be(local_config: Callable[..., RunConfig]) -> None:
    with pytest.raises(InputError, match=r"student.compile: always cannot be used on cpu.*take auto"):
        distillkit.run(local_config(student={"compile": "always"}))


@pytest.mark.parametrize("family", ["qwen3"])
def test_layers_that_recompute_keep_what_is_reckoned_and_multiply_no_more(
    family: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What PyTorch's partitioner keeps of a layer, here with nothing generated; without a GPU it chooses alike.

    Of one length: what symbols of lengths take twice as long to trace for changes nothing of what is kept.
    """
    monkeypatch.setattr(compiled_layers, "maybe_mark_dynamic", lambda *_: None)
    sizes = {"hidden_size": 128, "intermediate_size": 384, "num_attention_heads": 4, "num_key_value_heads": 1}
    AutoConfig.for_model(family, **sizes, head_dim=32, num_hidden_layers=2, vocab_size=64).save_pretrained(tmp_path)
    size = footprint(str(tmp_path), torch.device("cpu"), "float32")
    items = [PromptAndResponse(token_ids(np.arange(200) % 60), token_ids(np.arange(57)))]
    found: list[tuple[int, Tensor]] = []
    for recomputes in (False, True):
        torch._dynamo.reset()
        torch.manual_seed(0)
        model = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(tmp_path)).eval().requires_grad_(False)
        policy = Policy.lora(CausalLM(model, Device(torch.device("cpu")), torch.float32), 4, 8, 0.0, 0)
        policy.packs = True
        products = CountedProducts()
        policy.compile("aot_eager_decomp_partition", recompute=recomputes)
        kept: dict[int, int] = {}

        def keep(tensor: Tensor, kept: dict[int, int] = kept) -> Tensor:
            kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
            return tensor

        with policy.training():
            with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
                logprobs = policy.logprobs(items)
            with products:
                logprobs.sum().backward()
        weights = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
        tokens = sum(bytes_ for pointer, bytes_ in kept.items() if pointer not in weights) / 256 / 4
        training = Training(str(tmp_path), torch.float32, 4, packs=True, checkpoints=False)
        passes = Passes(training, size, WORK, 4096, compiled=True, routed=0, recomputes=recomputes, chunks=None)
        reckoned = passes._given_by_layers() + size.structure.layers * size.structure.hidden
        assert tokens == pytest.approx(reckoned, rel=0.15), recomputes
        found.append((products.count, torch.cat([p.grad.flatten() for p in policy.trained.values()])))
    (plain, expected), (again, gradient) = found
    assert plain == again > 0
    torch.testing.assert_close(gradient, expected)


class CountedProducts(TorchDispatchMode):
    """How many matrix products are computed."""

    count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += func in (torch.ops.aten.mm.default, torch.ops.aten.addmm.default)
        return func(*args, **(kwargs or {}))


def train_on_rows_of_three_lengths(policy: Policy) -> None:
    """Forward and backward."""
    for sizes in (((5, 9), (6, 7)), ((8, 20),), ((9, 9), (3, 4), (2, 30))):
        items = [PromptAndResponse(token_ids(np.arange(p) + 5), token_ids(np.arange(r) + 5)) for p, r in sizes]
        policy.logprobs(items).sum().backward()


def test_a_loss_on_distributions_is_the_same_behind_compiled_and_sharded_layers(one_rank: None) -> None:
    data = distribution_batch("student_only")
    found: list[tuple[float, dict[str, Tensor]]] = []
    for compiles, shards in ((False, False), (True, False), (True, True)):
        torch.manual_seed(0)
        config = LlamaConfig(**tiny_models.SMALL, tie_word_embeddings=True)
        model = LlamaForCausalLM(config).eval().requires_grad_(False)
        policy = Policy.full(CausalLM(model, Device(torch.device("cpu")), torch.float32))
        policy.packs = True
        if shards:
            policy.shard(1)
        if compiles:
            policy.compile("aot_eager")
        share = Trainer(policy, PLAIN, chunked({}, positions=5)).compute_gradient(data, parts=2)
        assert bool(torch._dynamo.utils.counters["stats"].get("unique_graphs")) == compiles
        gradients = {
            name.removeprefix("model."): full_tensor(p.grad) for name, p in policy.trained.items() if p.grad is not None
        }
        found.append((share.loss, gradients))
    for loss, mine in found[1:]:
        assert loss == pytest.approx(found[0][0], rel=1e-5)
        for name, gradient in found[0][1].items():
            torch.testing.assert_close(mine[name], gradient, rtol=1e-3, atol=1e-4 * float(gradient.abs().max()))
