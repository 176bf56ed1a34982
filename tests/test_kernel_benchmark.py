"""What `benchmarks.speed.kernels` makes of what the profiler tells; the device itself is not here."""

from types import SimpleNamespace

import pytest

from benchmarks.speed.kernels import Kernel, Profile, kind_of, lines
from benchmarks.speed.parts import Part


def kernel(name: str, start: float, end: float) -> Kernel:
    return SimpleNamespace(name=name, time_range=SimpleNamespace(start=start, end=end))


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("nvjet_sm90_tst_256x128_64x4_1x2_h_bz_coopA_NNT", "products"),
        ("_gated_product", "products"),
        ("void pytorch_flash::flash_bwd_dq_dk_dv_loop_seqk_parallel_kernel<Flash_bwd", "attention"),
        ("_attend", "attention"),
        ("cudnn_generated_fort_native_sdpa_sm90_flash_fprop_wgmma", "attention"),
        ("triton_red_fused__to_copy_gather_logsumexp_squeeze_sub_unsqueeze_0", "norms, activations, softmax"),
        ("Memcpy DtoD (Device -> Device)", "copies"),
        ("void at::native::reduce_kernel<128, 4, at::native::ReduceOp<float", "other"),
    ],
)
def test_kernels_are_told_apart_by_their_names(name: str, kind: str) -> None:
    assert kind_of(name) == kind


def test_a_part_is_told_with_what_the_device_waits_and_its_longest_kernels() -> None:
    ran = [kernel("_product", 0, 300), kernel("triton_poi_fused_mul", 300, 400), kernel("_product", 500, 700)]
    found = Profile.of(0.001, ran)
    assert found.busy == pytest.approx(6e-4)
    assert list(found.by_kind().items()) == [("products", (2, 500)), ("norms, activations, softmax", (1, 100))]
    told = list(lines(Part("scoring", lambda: None, 1), found, 1))
    assert told[0] == "\nscoring: 0.001 s, the device computes 0.001 s of it in 3 kernels\n"
    assert told[3:] == [
        "| **products** | 0.50 | 50.0% | 2 | 250.0 |",
        "| **norms, activations, softmax** | 0.10 | 10.0% | 1 | 100.0 |",
        "| _product | 0.50 | 50.0% | 2 | 250.0 |",
    ]
