"""Decoder layers compiled by torch.compile: one program for all layers, and for packed rows of every length."""

from collections.abc import Callable
from typing import Any

import torch
import torch._functorch.config
from torch import Tensor, nn
from torch._dynamo import lookup_backend, maybe_mark_dynamic
from transformers import PreTrainedConfig

Compiler = Callable[..., Callable[..., Any]]
"""What torch.compile calls with a graph and example inputs; it returns what runs in the graph's place."""


MEASURED = frozenset({"llama", "mistral", "qwen2", "qwen3"})
"""`model_type`s whose layers were compiled on a GPU, and made one program for all lengths."""


KEPT = 0.9
"""The share of what compiled layers would keep, between their inputs alone and all. Any below 1 makes PyTorch's
partitioner recompute what no product gives before it thinks of more, and that is enough: it leaves about 0.7."""


def compiles_unasked(config: PreTrainedConfig) -> bool:
    """Whether layers of this kind are known to become one program that serves every row.

    Experts that loop over what came to them may be compiled anew at every step; other families were not measured.
    """
    return config.get_text_config().model_type in MEASURED


def compile_layer(layer: nn.Module, backend: str | Compiler) -> None:
    """Compile a decoder layer's forward for packed rows of every length; `backend` is torch.compile's.

    A teacher on the same base uses the layer too; its padded sequences have too many shapes, and stay as they were.
    """
    plain = layer.forward
    compiled = torch.compile(plain, backend=backend)

    def forward(hidden: Tensor, *args: object, **kwargs: object) -> object:
        if "cu_seq_lens_q" not in kwargs:
            return plain(hidden, *args, **kwargs)
        mark_token_dimension_dynamic(hidden)  # here, since FSDP's hooks pass on other tensors than they are given
        return compiled(hidden, *args, **kwargs)

    setattr(layer, "forward", forward)  # noqa: B010 - a method of one object


def recomputing(backend: str | Compiler) -> Compiler:
    """A compiler as `backend` whose layers keep less for their backward pass, and multiply no more.

    Left to itself it keeps what norms and SwiGLU give, since the products of a LoRA read it again backwards. With a
    budget below all of that it computes anew what takes no products first (`activation_memory_budget`).
    """

    def compile_graph(graph: torch.fx.GraphModule, inputs: list[Tensor], **options: object) -> Callable[..., Any]:
        compiler: Compiler = lookup_backend(backend)
        with torch._functorch.config.patch(activation_memory_budget=KEPT):
            return compiler(graph, inputs, **options)

    return compile_graph


def mark_token_dimension_dynamic(*tensors: Tensor) -> None:
    """Tell torch.compile that the second dimension varies, so that it compiles once for all row lengths.

    With `dynamic=True` it would take every other dimension for a variable too: four times as long for a LoRA. Where it
    takes a length for a constant all the same (as on CUDA that of the shortest rows), that length has its own program.
    """
    for tensor in tensors:
        maybe_mark_dynamic(tensor, 1)
