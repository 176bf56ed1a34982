"""The protocol's protobuf messages: forward-backward requests as they are read, results as they are sent.

Numbers and fields are those of `tinker_public.proto` in the SDK (0.25.0 to 0.38.0).
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from distillkit.arrays import FloatArray, token_ids
from distillkit_loopback.tinker import protobuf as pb
from distillkit_loopback.training.datums import Batch, Datum
from distillkit_loopback.transport.routes import Refused

FLOAT32, INT64, INT32 = 1, 2, 3
DTYPES: Mapping[int, npt.DTypeLike] = {FLOAT32: np.float32, INT64: np.int64, INT32: np.int32}
STOP_REASONS = {"stop": 0, "length": 1}
MASKED = -99999.0
"""The logprob of an entry of a top-k table that holds nothing; its id is 0."""

Numbers = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class SentBatch:
    """The body of a forward or forward-backward request."""

    model_id: str
    seq_id: int
    data: Sequence[pb.Message]
    loss: str
    options: Mapping[str, float | str]
    forward_only: bool

    @classmethod
    def read(cls, body: bytes) -> "SentBatch":
        """Raises Refused with 422 for bytes that are no such message."""
        try:
            message = pb.parse(body)
            options: dict[str, float | str] = {}
            for entry in pb.parts(message, 5):
                options[pb.text(entry, 1)] = pb.double(entry, 2)
            for entry in pb.parts(message, 7):
                value = pb.parse(pb.binary(entry, 2))
                options[pb.text(entry, 1)] = pb.text(value, 2) if 2 in value else pb.double(value, 1)
            return cls(
                pb.text(message, 1),
                pb.integer(message, 2),
                pb.parts(message, 3),
                pb.text(message, 4),
                options,
                bool(pb.integer(message, 6)),
            )
        except ValueError as error:
            raise Refused(422, f"Invalid proto forward_backward body: {error}") from error

    def batch(self, vocabulary: int) -> Batch:
        """What to compute.

        Raises ValueError for arrays of other lengths, unshifted targets, ids that are unknown, and no target tokens.
        """
        data = [self._datum(index, each, vocabulary) for index, each in enumerate(self.data)]
        return Batch(data, self.loss, {"ratio_log_cap": np.inf})

    def _datum(self, index: int, datum: pb.Message, vocabulary: int) -> Datum:
        sent = {pb.text(entry, 1): tensor(pb.parse(pb.binary(entry, 2))) for entry in pb.parts(datum, 2)}
        if "target_tokens" not in sent:
            raise ValueError(f"datum {index}: no target_tokens")
        targets = token_ids(sent["target_tokens"].astype(np.int64))
        names = {"logprobs": "sampling_logprobs", "advantages": "advantages", "weights": "weights"}
        arrays = {ours: sent[name].astype(np.float32) for name, ours in names.items() if name in sent}
        return Datum.checked(index, inputs_of(datum), targets, arrays, vocabulary)


def inputs_of(datum: pb.Message) -> npt.NDArray[np.int64]:
    """[T] the tokens of a datum's chunks. Raises ValueError for a chunk that is no text."""
    chunks = [pb.parse(pb.binary(chunk, 1)) for chunk in pb.parts(datum, 1)]
    if any(1 not in chunk for chunk in chunks):
        raise ValueError("the loopback service reads token ids alone")
    found = [np.frombuffer(pb.binary(chunk, 1), np.int32) for chunk in chunks]
    return token_ids(np.concatenate(found).astype(np.int64)) if found else token_ids([])


def tensor(message: pb.Message) -> Numbers:
    """A tensor's values in its shape; of a sparse one those that are not listed are 0. Raises ValueError."""
    dtype = DTYPES.get(pb.integer(message, 3))
    if dtype is None:
        raise ValueError(f"a tensor of the unknown type {pb.integer(message, 3)}")
    shape = pb.integers(message, 4)
    if 2 not in message:
        values = np.frombuffer(pb.binary(message, 1), dtype).astype(np.float64)
        return values.reshape(shape) if shape else values
    sparse = pb.parse(pb.binary(message, 2))
    rows, columns = (np.frombuffer(pb.binary(sparse, number), np.int64) for number in (2, 3))
    return dense(np.frombuffer(pb.binary(sparse, 1), dtype), rows, columns, shape)


def dense(
    values: npt.ArrayLike, row_starts: Sequence[int] | npt.ArrayLike, columns: npt.ArrayLike, shape: Sequence[int]
) -> Numbers:
    """[rows, columns] of what a sparse tensor lists by rows (CSR); 0 elsewhere."""
    whole = np.zeros(tuple(shape))
    starts = np.asarray(row_starts, np.int64)
    rows = np.repeat(np.arange(len(starts) - 1), np.diff(starts))
    whole[rows, np.asarray(columns, np.int64)] = np.asarray(values)
    return whole


def encode_tensor(values: npt.NDArray[np.generic], dtype: int = FLOAT32) -> bytes:
    """A dense tensor."""
    data = pb.encode_bytes(1, values.astype(DTYPES[dtype]).tobytes())
    return data + pb.encode_integer(3, dtype) + pb.encode_integers(4, values.shape)


def encode_computed(kind: str, data: Iterable[Mapping[str, FloatArray]], metrics: Mapping[str, float]) -> bytes:
    """A `ForwardBackwardOutput`: the arrays of each datum, each datum a record of its own."""
    out = pb.encode_bytes(1, kind)
    for arrays in data:
        record = pb.encode_bytes(1, kind)
        for name, values in arrays.items():
            raw = values.astype(np.float32).tobytes()
            offsets = np.array([0, len(raw)], np.int64).tobytes()
            batched = pb.encode_bytes(1, raw) + pb.encode_bytes(2, offsets) + pb.encode_integer(3, FLOAT32)
            batched += pb.encode_integers(4, values.shape[1:]) if values.ndim > 1 else b""
            record += pb.encode_bytes(2, pb.encode_bytes(1, name) + pb.encode_bytes(2, batched))
        out += pb.encode_bytes(2, record + pb.encode_integer(3, 1))
    for name, value in metrics.items():
        out += pb.encode_bytes(3, pb.encode_bytes(1, name) + pb.encode_double(2, value))
    return out


@dataclass(frozen=True, slots=True, eq=False)
class TopK:
    """[n, k] ids and logprobs; a row without candidates is `MASKED`."""

    ids: npt.NDArray[np.int64]
    logprobs: FloatArray

    def encoded(self) -> bytes:
        """A `TopkLogprobs`."""
        count, k = self.ids.shape
        data = pb.encode_bytes(1, self.ids.astype(np.int32).tobytes())
        data += pb.encode_bytes(2, self.logprobs.astype(np.float32).tobytes())
        return data + pb.encode_integer(3, k) + pb.encode_integer(4, count)


@dataclass(frozen=True, slots=True, eq=False)
class SampledIds:
    """One completion."""

    ids: Sequence[int]
    logprobs: FloatArray | None
    reason: str
    """`stop` or `length`."""
    topk: TopK | None = None

    def encoded(self) -> bytes:
        """A `SampledSequence`."""
        data = pb.encode_integer(1, STOP_REASONS[self.reason])
        data += pb.encode_bytes(2, np.asarray(self.ids, np.int32).tobytes())
        if self.logprobs is not None:
            data += pb.encode_bytes(3, self.logprobs.astype(np.float32).tobytes())
        return data + (b"" if self.topk is None else pb.encode_bytes(4, self.topk.encoded()))


@dataclass(frozen=True, slots=True, eq=False)
class Sampled:
    """Completions of a prompt, and what was asked of the prompt itself."""

    completions: Sequence[SampledIds]
    prompt_logprobs: FloatArray | None = None
    """NaN where there is none."""
    topk: TopK | None = None
    targets: FloatArray | None = None
    """[N - 1, K] of the requested ids; 0.0 where none was."""

    def encoded(self) -> bytes:
        """A `SampleResponse`."""
        data = b"".join(pb.encode_bytes(1, each.encoded()) for each in self.completions)
        if self.prompt_logprobs is not None:
            data += pb.encode_bytes(2, self.prompt_logprobs.astype(np.float32).tobytes())
        if self.topk is not None:
            data += pb.encode_bytes(3, self.topk.encoded())
        return data if self.targets is None else data + pb.encode_bytes(5, encode_tensor(self.targets))
