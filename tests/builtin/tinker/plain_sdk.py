"""The SDK's values as plain ones."""

from types import SimpleNamespace

PLAIN_SDK = SimpleNamespace(
    ModelInput=SimpleNamespace(from_ints=list),
    SamplingParams=lambda **params: params,
    Datum=lambda **fields: SimpleNamespace(**fields),
    AdamParams=lambda **fields: fields,
)
