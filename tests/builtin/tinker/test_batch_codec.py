"""What a batch becomes on its way to a Tinker server, and what is made of what comes back."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from builtin.tinker.plain_sdk import PLAIN_SDK
from distillkit.errors import AlignmentError, BadStepError, PluginError, RunFailedError
from distillkit.training_data import Batch, Datum
from distillkit.types import SampleKey
from distillkit_builtin.tinker.batch_codec import (
    adam_params,
    as_datums,
    current_logprobs,
    server_metrics,
    step_metrics,
    trained_tokens,
)
from distillkit_builtin.tinker.gradient_scale import GradientScale
from distillkit_builtin.tinker.options import TinkerStudentOptions

NAN = float("nan")


def batch(*datums: Datum, **over: Any) -> Batch:
    return Batch(**{"loss_function": "importance_sampling", "options": {}, "datums": datums, **over})


def datum(prompt: list[int], response: list[int], **inputs: list[float]) -> Datum:
    count = len(response)
    values = {"advantages": [1.0] * count, "weights": [1.0] * count, "sampling_logprobs": [-1.0] * count, **inputs}
    arrays = {name: np.array(each, np.float32) for name, each in values.items()}
    return Datum(SampleKey("row", 0, 0), np.array(prompt), np.array(response), arrays)


TWO = batch(
    datum([5, 6, 7], [8, 9], advantages=[2.0, -1.0], weights=[0.5, 0.25], sampling_logprobs=[-1.0, -2.0]),
    datum([5], [6, 7, 8], advantages=[1.0, NAN, 3.0], weights=[1.0, 0.0, 1.0], sampling_logprobs=[-1.0, NAN, -3.0]),
)


def sent(scale: GradientScale) -> list[dict[str, Any]]:
    return [made.loss_fn_inputs for made in as_datums(TWO, trained_tokens(TWO), scale, PLAIN_SDK)]


def test_weights_are_in_the_advantages_and_prompts_train_nothing() -> None:
    first, second = as_datums(TWO, trained_tokens(TWO), GradientScale(), PLAIN_SDK)
    assert first.model_input == [5, 6, 7, 8]
    assert first.loss_fn_inputs == {
        "target_tokens": [6, 7, 8, 9],
        "logprobs": [0.0, 0.0, -1.0, -2.0],
        "advantages": [0.0, 0.0, 1.0, -0.25],
    }
    assert second.loss_fn_inputs["advantages"] == [1.0, 0.0, 3.0]  # what stands where nothing counts is not sent
    assert second.loss_fn_inputs["logprobs"] == [-1.0, 0.0, -3.0]


def test_what_a_server_divides_by_is_multiplied_in() -> None:
    plain = sent(GradientScale())
    for by_tokens, by_sequences in ((True, True), (True, False), (False, True)):
        for ours, theirs in zip(sent(GradientScale(by_tokens, by_sequences)), plain, strict=True):
            tokens = len(ours["target_tokens"])
            factor = (tokens if by_tokens else 1) * (2 if by_sequences else 1)
            assert ours["advantages"] == [factor * value for value in theirs["advantages"]]
            assert ours["logprobs"] == theirs["logprobs"]


@pytest.mark.parametrize("name", ["advantages", "weights", "sampling_logprobs"])
def test_a_number_that_is_none_is_refused_before_it_is_sent(name: str) -> None:
    with pytest.raises(BadStepError, match=r"row row, epoch 0, sample 0: token 1 \(id 9\)"):
        trained_tokens(batch(datum([5], [8, 9], **{name: [0.5, NAN]})))


def test_another_loss_or_options_are_refused() -> None:
    with pytest.raises(PluginError, match="not cispo"):
        trained_tokens(batch(loss_function="cispo"))
    with pytest.raises(PluginError, match="ratio_gate"):
        trained_tokens(batch(options={"ratio_gate": {"low": 0.5}}))


def output(*values: float) -> dict[str, Any]:
    return {"logprobs": SimpleNamespace(data=list(values))}


def test_the_loss_and_the_mismatch_are_those_of_the_tokens_that_count() -> None:
    tokens = trained_tokens(TWO)
    logprobs = current_logprobs(TWO, [output(0.0, 0.0, -1.5, -2.0), output(-1.0, NAN, -2.0)])
    metrics = step_metrics(TWO, tokens, logprobs)
    assert metrics["train/loss"] == pytest.approx(-(np.exp(-0.5) * 1.0 + 1.0 * -0.25 + 1.0 + np.exp(1.0) * 3.0))
    assert metrics["rollout/logprob_mismatch"] == pytest.approx((0.5 + 0.0 + 0.0 + 1.0) / 4)
    assert metrics["rollout/logprob_mismatch_max"] == pytest.approx(1.0)


def test_a_logprob_that_counts_and_is_none_ends_the_run() -> None:
    logprobs = current_logprobs(TWO, [output(0.0, 0.0, -1.5, NAN), output(-1.0, 0.0, -2.0)])
    with pytest.raises(RunFailedError, match=r"token 1 \(id 9\): the server computed the logprob nan.*--resume"):
        step_metrics(TWO, trained_tokens(TWO), logprobs)


def test_logprobs_of_other_tokens_are_refused() -> None:
    with pytest.raises(AlignmentError, match="3 logprobs came back for 4 positions"):
        current_logprobs(TWO, [output(0.0, -1.5, -2.0), output(-1.0, 0.0, -2.0)])
    with pytest.raises(AlignmentError, match="2 completions gave 1 outputs"):
        current_logprobs(TWO, [output(0.0)])
    with pytest.raises(AlignmentError, match="hold no logprobs"):
        current_logprobs(TWO, [{}, {}])


def test_what_the_server_measures_has_our_name_where_we_have_one() -> None:
    step = SimpleNamespace(metrics={"skyrl.ai/grad_norm": 2.0})
    assert server_metrics(SimpleNamespace(metrics={"loss:sum": 1.5}), step) == {
        "tinker/loss_sum": 1.5,
        "train/grad_norm": 2.0,
    }
    assert server_metrics(SimpleNamespace(metrics=None)) == {}
    with pytest.raises(RunFailedError, match=r"grad_norm is nan.*--resume"):
        server_metrics(SimpleNamespace(metrics={"skyrl.ai/grad_norm": NAN}))


def test_the_optimizers_options_are_all_sent_with_each_step() -> None:
    options = TinkerStudentOptions(
        model="m", learning_rate=0.1, adam_betas=(0.7, 0.8), adam_epsilon=0.2, weight_decay=0.3, grad_clip_norm=0.4
    )
    assert adam_params(options, PLAIN_SDK) == {
        "learning_rate": 0.1,
        "beta1": 0.7,
        "beta2": 0.8,
        "eps": 0.2,
        "weight_decay": 0.3,
        "grad_clip_norm": 0.4,
    }


def test_a_batch_in_which_nothing_trains_is_sent_and_has_no_mismatch() -> None:
    nothing = batch(datum([5], [6], weights=[0.0], advantages=[NAN]), datum([5, 6], [7, 8], weights=[0.0, 0.0]))
    tokens = trained_tokens(nothing)
    sent_datums = as_datums(nothing, tokens, GradientScale(), PLAIN_SDK)
    assert [made.loss_fn_inputs["advantages"] for made in sent_datums] == [[0.0], [0.0, 0.0, 0.0]]
    logprobs = current_logprobs(nothing, [output(NAN), output(-1.0, -1.0, NAN)])
    assert step_metrics(nothing, tokens, logprobs) == {"train/loss": 0.0}
