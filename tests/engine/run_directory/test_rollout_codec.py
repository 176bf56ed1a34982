"""What a checkpoint holds of a window comes back as it was, to the last bit."""

import json
from dataclasses import replace

import numpy as np

from distillkit.arrays import token_ids
from distillkit.loop.outcomes import LostCompletion, Outcomes, WindowRequests
from distillkit.run_directory.codec import from_json, to_json
from distillkit.run_directory.rollout_codec import InFlight
from distillkit.testing import make_request, make_rollout, make_row, make_scored
from engine.run_directory.same_fields import assert_same


def window() -> tuple[WindowRequests, Outcomes]:
    row = make_row()
    rollout = make_rollout([1, 2, 3], [-0.1, -1e-30, -2.0], row=row, mask=[True, True, False], policy_version=4)
    rollout = replace(rollout, rewards={"right": 0.5}, finish_reason="length", text="abc")
    unscored = make_rollout([7], [-0.5], row=row, sample=1, policy_version=4)
    scored = make_scored(rollout, [-0.3, -1 / 3, -5.0], row=row)
    topk = np.array([[-0.1, np.nan], [-0.2, -1e-7], [-0.3, -4.0]], np.float16)
    ids = np.array([[1, 2], [3, 4], [5, 6]], np.int64)
    read = replace(scored.scores["teacher"].request, read_ids=token_ids([1, 2, 9]))
    arrays = {"topk": topk, "topk_ids": ids}
    score = replace(scored.scores["teacher"], request=read, echoed_ids=read.token_ids, arrays=arrays, version=3)
    scored = replace(scored, scores={"teacher": score})
    requests = (rollout.request, unscored.request, make_request(row, sample=2))
    lost = (
        LostCompletion(unscored.key, "score", "busy", True, "teacher"),
        LostCompletion(requests[2].key, "sample", "cut", False),
    )
    asked = WindowRequests({(row.row_id, 0): scored.prompts}, requests, 4)
    return asked, Outcomes((scored,), lost, (rollout, unscored), 1.0, 2.0)


def test_a_window_comes_back_field_by_field() -> None:
    requests, outcomes = window()
    text = json.dumps(to_json(InFlight.of(requests, outcomes)), allow_nan=False)
    again = from_json(InFlight, json.loads(text)).for_requests(requests)
    assert_same(again, outcomes)


def test_other_rows_than_were_saved_are_told_apart() -> None:
    requests, outcomes = window()
    saved = InFlight.of(requests, outcomes)
    assert saved.completions == 2
    assert saved.for_requests(replace(requests, samples=requests.samples[:2])) is None
