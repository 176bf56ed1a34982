"""Which products of few rows have a kernel of their own, and that their parts are added up where they are read."""

import sys
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor

from distillkit_builtin.local.fast import feed_forward, few_rows, projection
from distillkit_builtin.local.fast.feed_forward import GatedLayer, SharedExpert
from distillkit_builtin.local.fast.few_rows import GATES, PARTS, Tiles, gate_tiles, split_tiles
from distillkit_builtin.local.fast.projection import Projection
from distillkit_builtin.local.model.fused_ops import add_and_norm, gated

OUT_600M, DOWN_600M, GATE_UP_600M = (1024, 2048), (1024, 3072), (6144, 1024)
OUT_8B, DOWN_8B, GATE_UP_8B = (4096, 4096), (4096, 12_288), (24_576, 4096)


def empty(*shape: int, dtype: torch.dtype = torch.bfloat16) -> Tensor:
    return torch.empty(shape, dtype=dtype, device="meta")


@pytest.fixture
def on_hopper(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(few_rows, "measured_on", lambda device: True)


@pytest.mark.usefixtures("on_hopper")
@pytest.mark.parametrize("rows", [1, 3, 64])
@pytest.mark.parametrize(
    ("shape", "split", "gates"),
    [
        (OUT_600M, PARTS, None),
        (DOWN_600M, PARTS, None),
        (GATE_UP_600M, PARTS, GATES),
        (OUT_8B, None, None),
        (DOWN_8B, None, None),
        (GATE_UP_8B, None, None),
        ((1024, 2048 + 128), None, None),  # not in two parts of whole tiles
        ((1024 + 16, 2048), None, None),
        ((128, 256), None, None),  # never measured
    ],
)
@torch.no_grad()
def test_products_that_were_measured_to_gain_are_taken(
    rows: int, shape: tuple[int, int], split: Tiles | None, gates: Tiles | None
) -> None:
    x, weight = empty(rows, shape[1]), empty(*shape)
    assert split_tiles(x, weight) == split
    assert gate_tiles(x, weight) == gates


@pytest.mark.usefixtures("on_hopper")
@torch.no_grad()
def test_many_rows_float32_other_layouts_and_gradients_are_not() -> None:
    x, weight = empty(64, 2048), empty(*OUT_600M)
    assert split_tiles(x, weight)
    assert split_tiles(x.half(), weight.half())
    assert split_tiles(empty(65, 2048), weight) is None
    assert split_tiles(x.float(), weight.float()) is None
    assert split_tiles(x.half(), weight) is None
    assert split_tiles(x, empty(2048, 1024).t()) is None
    assert split_tiles(empty(64, 4096)[:, :2048], weight) is None
    with torch.enable_grad():
        assert split_tiles(x, weight) is None


@pytest.mark.parametrize(("capability", "taken"), [((9, 0), True), ((8, 0), False), ((10, 0), False), ((9, 4), False)])
def test_one_kind_of_device_is_taken(monkeypatch: pytest.MonkeyPatch, capability: tuple[int, int], taken: bool) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    measured_on = few_rows.measured_on.__wrapped__
    assert measured_on(torch.device("cuda", 0)) is taken
    assert not measured_on(torch.device("cpu"))
    monkeypatch.setattr(torch.version, "hip", "6.2")  # whose numbers mean other devices
    assert not measured_on(torch.device("cuda", 0))


def parts_of(x: Tensor, weight: Tensor) -> Tensor:
    """As the kernel gives them."""
    halves = zip(x.chunk(2, dim=1), weight.chunk(2, dim=1), strict=True)
    return torch.stack([some.float() @ weights.float().t() for some, weights in halves])


@pytest.fixture
def by_kernel(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What was computed by a stand-in of the kernel, which takes everything."""
    taken: list[str] = []

    def product(x: Tensor, weight: Tensor, tiles: Tiles) -> Tensor:
        assert tiles == PARTS
        taken.append("parts")
        return parts_of(x, weight)

    def gated_product(x: Tensor, gate_up: Tensor, tiles: Tiles, activation: str) -> Tensor:
        assert tiles == GATES
        taken.append("gates")
        return gated(x @ gate_up.t(), activation)

    kernel = SimpleNamespace(product=product, gated_product=gated_product)
    monkeypatch.setitem(sys.modules, "distillkit_builtin.local.fast.few_rows_kernel", kernel)
    monkeypatch.setattr(projection, "split_tiles", lambda x, weight: PARTS)
    monkeypatch.setattr(feed_forward, "gate_tiles", lambda x, weight: GATES)
    return taken


@pytest.mark.parametrize("behind", [False, True])
@pytest.mark.parametrize("scale", [None, 0.5])
def test_parts_are_added_up_as_the_whole_is_read(behind: bool, scale: float | None) -> None:
    torch.manual_seed(0)
    residual, x, weight = torch.randn(5, 8), torch.randn(5, 16), torch.randn(8, 16)
    norms = torch.randn(8) if behind else None, torch.randn(8)
    whole = add_and_norm(residual, x @ weight.t(), *norms, scale, 1e-6, False)
    parts = add_and_norm(residual, parts_of(x, weight), *norms, scale, 1e-6, False)
    torch.testing.assert_close(parts, whole)


def test_a_sum_of_parts_is_rounded_once() -> None:
    """1 + 1/256 + 1/256 is 1 + 1/128 in bfloat16, and 1 where each is added to it in turn."""
    parts = torch.tensor([1.0, 2**-8, 2**-8])[:, None, None]
    total, _ = add_and_norm(torch.zeros(1, 1, dtype=torch.bfloat16), parts, None, None, None, 1e-6, False)
    assert total.dtype == torch.bfloat16
    assert total.item() == 1 + 2**-7


def test_a_layer_by_the_kernel_is_the_layer(by_kernel: list[str]) -> None:
    torch.manual_seed(0)
    gate_up, down, hidden = torch.randn(2 * 16, 8), torch.randn(8, 16), torch.randn(5, 8)
    layer = GatedLayer(Projection(gate_up, None), Projection(down, None), "silu")
    expected = gated(hidden @ gate_up.t(), "silu") @ down.t()
    found = layer(hidden)
    assert by_kernel == ["gates", "parts"]
    assert found.shape == (2, 5, 8)
    torch.testing.assert_close(found.sum(0), expected)
    gate = torch.randn(1, 8)
    torch.testing.assert_close(SharedExpert(layer, gate)(hidden), torch.sigmoid(hidden @ gate.t()) * expected)


def test_a_bias_or_a_lora_beside_the_weights_is_not_left_out(by_kernel: list[str]) -> None:
    torch.manual_seed(0)
    x, weight, bias, down, up = (torch.randn(*shape) for shape in ((5, 8), (6, 8), (6,), (2, 8), (6, 2)))
    torch.testing.assert_close(Projection(weight, bias).parts(x), x @ weight.t() + bias)
    adapted = Projection(weight, None, down, up)
    torch.testing.assert_close(adapted.parts(x), x @ weight.t() + x @ down.t() @ up.t())
    gates = GatedLayer(adapted, Projection(torch.randn(4, 3), torch.zeros(4)), "silu")
    gates(x)
    assert by_kernel == []
