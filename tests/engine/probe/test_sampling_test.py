import itertools
import math

import numpy as np
import numpy.typing as npt
import pytest

from distillkit.errors import AlignmentError
from distillkit.probe import sampling_test
from distillkit.probe.sampling_test import untouched_sampling

Numbers = npt.NDArray[np.float64]
VOCABULARY = 2000


def logits_of(rng: np.random.Generator, spread: float) -> Numbers:
    """With the peak at 20, as a language model has it: penalties scale logits."""
    logits = rng.normal(0.0, spread, VOCABULARY)
    return logits - logits.max() + 20.0


def probabilities(logits: Numbers) -> Numbers:
    weights = np.exp(logits - logits.max())
    return weights / weights.sum()


def top_k(logits: Numbers, k: int) -> Numbers:
    return np.where(logits >= np.sort(logits)[-k], logits, -np.inf)


def min_p(logits: Numbers, least: float) -> Numbers:
    return np.where(logits >= logits.max() + math.log(least), logits, -np.inf)


def penalized(logits: Numbers, penalty: float) -> Numbers:
    """As vLLM penalizes the tokens of a prompt: here every second token is one."""
    seen = np.arange(len(logits)) % 2 == 0
    return np.where(seen, np.where(logits > 0, logits / penalty, logits * penalty), logits)


TOUCHED = {
    "greedy": lambda logits: top_k(logits, 1),
    "top_k 20": lambda logits: top_k(logits, 20),
    "min_p 0.1": lambda logits: min_p(logits, 0.1),
    "temperature 0.7": lambda logits: logits / 0.7,
    "temperature 1.5": lambda logits: logits / 1.5,
    "repetition_penalty 1.2": lambda logits: penalized(logits, 1.2),
}


def sampled(rng: np.random.Generator, prompts: int, each: int, touch=lambda logits: logits, noise=0.0):
    """Groups of samples with the logprobs of the untouched model, from flat to peaked distributions."""
    groups = []
    for prompt in range(prompts):
        logits = logits_of(rng, 2.0 + prompt % 3)
        logprobs = np.log(probabilities(logits))
        tokens = rng.choice(VOCABULARY, each, p=probabilities(touch(logits)))
        off = rng.normal(0.0, noise, each) if noise else np.zeros(each)
        groups.append([(int(t), min(0.0, float(logprobs[t] + o))) for t, o in zip(tokens, off, strict=True)])
    return groups


def test_untouched_sampling_is_never_found_to_be_touched() -> None:
    evidence = [untouched_sampling(sampled(np.random.default_rng(seed), 2, 24)).log_evidence for seed in range(2000)]
    assert max(evidence) < math.log(1e5)  # a mean of at most 1, so once in fifty such tests


def test_rounding_in_other_batches_is_no_finding() -> None:
    for seed in range(100):
        assert untouched_sampling(sampled(np.random.default_rng(seed), 6, 64, noise=0.05)).untouched


@pytest.mark.parametrize("name", TOUCHED)
def test_what_touches_the_sampling_is_found(name: str) -> None:
    for seed in range(10):
        test = untouched_sampling(sampled(np.random.default_rng(seed), 12, 64, TOUCHED[name]))
        assert not test.untouched
        assert abs(test.z) > 3
        assert (test.z < 0) == (name == "temperature 1.5")


@pytest.mark.parametrize("off", [0.0, 0.9, -0.9])
def test_the_evidence_has_a_mean_of_at_most_one(monkeypatch: pytest.MonkeyPatch, off: float) -> None:
    """All sequences of five samples, enumerated: exactly 1 with no tolerance, and not more within it."""
    truth = (0.6, 0.3, 0.1)
    moved = sampling_test.TOLERANCE * off
    stated = [p * math.exp(-moved) for p in truth]

    def mean() -> float:
        return math.fsum(
            math.prod(truth[t] for t in tokens)
            * math.exp(untouched_sampling([[(t, math.log(stated[t])) for t in tokens]]).log_evidence)
            for tokens in itertools.product(range(3), repeat=5)
        )

    assert mean() <= 1.0
    if not off:
        monkeypatch.setattr(sampling_test, "TOLERANCE", 0.0)
        assert mean() == pytest.approx(1.0, abs=1e-12)


def test_z_is_the_surplus_of_repeats_by_its_standard_deviation() -> None:
    half = math.log(0.5)
    test = untouched_sampling([[(7, half), (7, half), (7, half), (8, math.log(0.25)), (8, math.log(0.25))]])
    variance = 3 * 0.25 + 0.75 * 0.25
    assert (test.samples, test.repeated) == (5, 3 / 5)
    assert test.expected == pytest.approx((3 * 0.5 + 0.75) / 5)
    assert test.z == pytest.approx((3 - (3 * 0.5 + 0.75)) / math.sqrt(variance))


def test_a_certain_token_says_nothing() -> None:
    test = untouched_sampling([[(1, 0.0)] * 100])
    assert test.untouched
    assert test.z == 0.0
    assert untouched_sampling([]).untouched


def test_a_server_that_always_gives_the_same_token_is_found_in_few_samples() -> None:
    assert untouched_sampling([[(1, math.log(0.5))] * 20]).untouched
    assert not untouched_sampling([[(1, math.log(0.5))] * 40]).untouched


def test_more_tests_want_more_evidence() -> None:
    one, many = (untouched_sampling([[(1, -1.0)] * 20], tests=count) for count in (1, 1000))
    assert many.threshold - one.threshold == pytest.approx(math.log(1000))
    assert many.log_evidence == one.log_evidence


@pytest.mark.parametrize("logprob", [math.nan, -math.inf, 0.5])
def test_what_is_no_logprob_is_refused(logprob: float) -> None:
    with pytest.raises(AlignmentError, match="the logprob of a sampled token is"):
        untouched_sampling([[(1, logprob)]])


def test_logprobs_of_no_distribution_are_refused() -> None:
    with pytest.raises(AlignmentError, match=r"add up to 1\.40"):
        untouched_sampling([[(1, math.log(0.7)), (2, math.log(0.7)), (3, math.log(0.1))]])


def test_the_finding_says_what_was_measured() -> None:
    finding = untouched_sampling([[(1, math.log(0.5))] * 40]).finding
    assert "97.5% of 40 samples of a next token repeat one of the same prompt, where 48.8% would" in finding
    assert "top-k" in finding
