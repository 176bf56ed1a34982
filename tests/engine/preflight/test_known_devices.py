import pytest

from distillkit import InputError, PlannedDevice
from distillkit.preflight.known_devices import planned_device

MIB, GIB = 2**20, 2**30


@pytest.mark.parametrize(
    ("given", "name", "size"),
    [
        ("h100-80gb", "h100-80gb", 81_559 * MIB),
        ("H100_80GB", "h100-80gb", 81_559 * MIB),
        ("rtx4090", "rtx4090-24gb", 24_564 * MIB),
        ("24gb", "24gb", 24 * GIB),
        ("79.5 GiB", "79.5 GiB", int(79.5 * GIB)),
    ],
)
def test_a_card_or_a_size_is_known(given: str, name: str, size: int) -> None:
    assert planned_device(given) == PlannedDevice(name, size)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("h100", "there is h100-80gb and h100-96gb; name it with its size"),
        ("h100-88gb", "did you mean 'h100-80gb'?"),
        ("0gb", "or a size, such as 24gb"),
        ("80", "or a size, such as 24gb"),
    ],
)
def test_what_is_neither_is_refused(given: str, said: str) -> None:
    with pytest.raises(InputError, match="--device") as caught:
        planned_device(given)
    assert said in str(caught.value)
