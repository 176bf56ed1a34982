"""The messages are those of the SDK's own protobuf classes."""

import numpy as np
import pytest

pytest.importorskip("tinker")
from tinker.proto import tinker_public_pb2 as sdk

from distillkit_loopback.tinker import protobuf
from distillkit_loopback.tinker.messages import SentBatch, TopK, encode_computed, encode_tensor, tensor
from distillkit_loopback.transport.routes import Refused


def test_a_request_of_the_sdk_is_read() -> None:
    message = sdk.ForwardBackwardRequest(model_id="m", seq_id=300, loss_fn="x", forward_only=True)
    message.loss_fn_config_v2["a"].number = 0.5
    message.loss_fn_config_v2["b"].text = "t"
    message.loss_fn_config["c"] = 0.0
    sent = SentBatch.read(message.SerializeToString())
    assert (sent.model_id, sent.seq_id, sent.loss, sent.forward_only) == ("m", 300, "x", True)
    assert sent.options == {"a": 0.5, "b": "t", "c": 0.0}


def test_tensors_are_read_and_written() -> None:
    values = np.array([[1.5, 0.0, -2.0], [0.0, 0.0, 4.0]], np.float32)
    written = sdk.Tensor.FromString(encode_tensor(values))
    assert (list(written.shape), written.dtype) == ([2, 3], sdk.DTYPE_FLOAT32)
    np.testing.assert_array_equal(tensor(protobuf.parse(written.SerializeToString())), values)
    sparse = sdk.Tensor(dtype=sdk.DTYPE_FLOAT32, shape=[2, 3])
    sparse.sparse_csr.values = np.array([1.5, -2.0, 4.0], np.float32).tobytes()
    sparse.sparse_csr.crow_indices = np.array([0, 2, 3], np.int64).tobytes()
    sparse.sparse_csr.col_indices = np.array([0, 2, 2], np.int64).tobytes()
    np.testing.assert_array_equal(tensor(protobuf.parse(sparse.SerializeToString())), values)


def test_results_are_what_the_sdk_reads() -> None:
    rows = [{"logprobs": np.array([-1.0, -2.0], np.float32)}, {"logprobs": np.array([-3.0], np.float32)}]
    found = sdk.ForwardBackwardOutput.FromString(encode_computed("kind", rows, {"loss:sum": float("nan")}))
    assert [record.num_datums for record in found.loss_fn_outputs] == [1, 1]
    assert np.isnan(found.metrics["loss:sum"])
    best = sdk.TopkLogprobs.FromString(TopK(np.array([[5, 6]]), np.array([[-1.0, -2.0]], np.float32)).encoded())
    assert (best.k, best.length, np.frombuffer(best.token_ids, np.int32).tolist()) == (2, 1, [5, 6])


@pytest.mark.parametrize("data", [b"\x0a\xff", b"\x80", b"\x0b", b"\x0a\x05ab"], ids=repr)
def test_what_is_no_message_is_refused(data: bytes) -> None:
    with pytest.raises(Refused, match="Invalid proto"):
        SentBatch.read(data)
