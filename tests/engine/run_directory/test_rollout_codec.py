"""What a checkpoint holds of a window comes back as it was, to the last bit."""

import json
from dataclasses import replace

import numpy as np

from distillkit.loop.outcomes import Outcomes, WindowRequests
from distillkit.run_directory.rollout_codec import InFlight
from distillkit.testing import make_rollout, make_row, make_scored


def test_logprobs_masks_and_arrays_come_back() -> None:
    row = make_row()
    rollout = make_rollout([1, 2, 3], [-0.1, -1e-30, -2.0], row=row, mask=[True, True, False])
    scored = make_scored(rollout, [-0.3, -1 / 3, -5.0], row=row)
    topk = np.array([[-0.1, np.nan], [-0.2, -1e-7], [-0.3, -4.0]], np.float16)
    ids = np.array([[1, 2], [3, 4], [5, 6]], np.int64)
    score = replace(scored.scores["teacher"], arrays={"topk": topk, "topk_ids": ids})
    scored = replace(scored, scores={"teacher": score})
    work = WindowRequests({(row.row_id, 0): scored.prompts}, (rollout.request,), 4)
    outcomes = Outcomes((scored,), (), (rollout,), 1.0, 2.0)
    text = json.dumps(InFlight.of(work, outcomes).as_json(), allow_nan=False)
    back = InFlight.from_json(json.loads(text)).for_work(work)
    assert back is not None
    (again,) = back.scored
    np.testing.assert_array_equal(again.rollout.logprobs, rollout.logprobs)
    np.testing.assert_array_equal(again.rollout.active, rollout.active)
    np.testing.assert_array_equal(again.scores["teacher"].logprobs, score.logprobs)
    np.testing.assert_array_equal(again.scores["teacher"].arrays["topk"], topk)
    assert again.scores["teacher"].arrays["topk"].dtype == np.float16
    np.testing.assert_array_equal(again.scores["teacher"].arrays["topk_ids"], ids)
