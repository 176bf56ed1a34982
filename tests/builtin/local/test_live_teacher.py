from collections.abc import Mapping

from distillkit.testing import make_context, make_teacher
from distillkit_builtin.local.live_teacher import LiveLocalTeacher
from distillkit_builtin.local.options import LocalScorerOptions


async def test_teachers_on_one_base_are_each_computed_as_their_options_say(tiny_model: str) -> None:
    run = make_context()
    teacher = make_teacher("t", model=tiny_model)
    live: Mapping[str, LiveLocalTeacher] = {
        forward: await LiveLocalTeacher.open(
            run,
            teacher,
            LocalScorerOptions(device="cpu", dtype="float32", forward=forward),  # type: ignore[arg-type]
        )
        for forward in ("fast", "plain")
    }
    assert live["fast"].inference.causal_lm is live["plain"].inference.causal_lm
    assert live["fast"].inference.backbone is not None
    assert live["plain"].inference.backbone is None
