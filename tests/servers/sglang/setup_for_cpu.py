"""Takes out of an environment with SGLang what would not run on a CPU; `setup.sh` runs it, with that environment.

- torchvision's extension is built for CUDA; its Python part, which transformers imports, wants its operators declared.
- SGLang's LoRA pins the memory of the host, which a machine without an accelerator cannot do.
"""

import sysconfig
from pathlib import Path

SITE = Path(sysconfig.get_paths()["purelib"])
SIZES = "SymInt batch_size, SymInt channels, SymInt height, SymInt width"
POOL = "float spatial_scale, SymInt pooled_height, SymInt pooled_width"
DEFORM = (
    "Tensor weight, Tensor offset, Tensor mask, Tensor bias, SymInt stride_h, SymInt stride_w, SymInt pad_h, "
    "SymInt pad_w, SymInt dil_h, SymInt dil_w, SymInt groups, SymInt offset_groups, bool use_mask"
)
MAPPED = "Tensor grad, Tensor rois, Tensor channel_mapping"
OPERATORS = (
    "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    f"roi_align(Tensor input, Tensor rois, {POOL}, int sampling_ratio, bool aligned) -> Tensor",
    f"roi_pool(Tensor input, Tensor rois, {POOL}) -> (Tensor, Tensor)",
    f"ps_roi_align(Tensor input, Tensor rois, {POOL}, int sampling_ratio) -> (Tensor, Tensor)",
    f"ps_roi_pool(Tensor input, Tensor rois, {POOL}) -> (Tensor, Tensor)",
    f"deform_conv2d(Tensor input, {DEFORM}) -> Tensor",
    f"_roi_align_backward(Tensor grad, Tensor rois, {POOL}, {SIZES}, int sampling_ratio, bool aligned) -> Tensor",
    f"_roi_pool_backward(Tensor grad, Tensor rois, Tensor argmax, {POOL}, {SIZES}) -> Tensor",
    f"_ps_roi_align_backward({MAPPED}, {POOL}, int sampling_ratio, {SIZES}) -> Tensor",
    f"_ps_roi_pool_backward({MAPPED}, {POOL}, {SIZES}) -> Tensor",
    f"_deform_conv2d_backward(Tensor grad, Tensor input, {DEFORM}) -> (Tensor, Tensor, Tensor, Tensor, Tensor)",
)
MARK = "# operators declared without the extension\n"


def declare_operators(init: Path) -> None:
    """Put the declarations before all that torchvision does."""
    text = init.read_text(encoding="utf-8")
    if not text.startswith(MARK):
        lines = [f"_library.define({operator!r})" for operator in OPERATORS]
        head = [MARK + "import torch", '_library = torch.library.Library("torchvision", "DEF")', *lines]
        init.write_text("\n".join([*head, text]), encoding="utf-8")


def pin_nothing(lora: Path) -> None:
    """Replace each request for pinned memory by one for any."""
    for file in lora.rglob("*.py"):
        text = file.read_text(encoding="utf-8")
        file.write_text(
            text.replace("pin_memory=True", "pin_memory=False").replace(".pin_memory()", ""), encoding="utf-8"
        )


if __name__ == "__main__":
    declare_operators(SITE / "torchvision/__init__.py")
    pin_nothing(SITE / "sglang/srt/lora")
