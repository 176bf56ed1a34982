"""The heart that beats in a log where nothing else is written."""

import threading

from distillkit_builtin.sinks.heartbeat import Heartbeat


def test_the_heart_beats_only_where_nothing_was_written_for_a_while() -> None:
    now, beats = [0.0], [0.0]
    heart = Heartbeat(lambda: beats.append(now[0]), 30.0, clock=lambda: now[0])
    for now[0] in range(0, 200, 10):
        if now[0] == 50:
            heart.written()
        heart.beat_if_due()
    assert beats == [0.0, 30, 80, 110, 140, 170]


def test_a_heart_that_is_stopped_is_still() -> None:
    beaten = threading.Event()
    heart = Heartbeat(beaten.set, 0.01)
    heart.start()
    assert beaten.wait(20)
    heart.stop()
    beaten.clear()
    assert not beaten.wait(0.15)


def test_a_heart_goes_on_beating_where_a_line_could_not_be_written() -> None:
    beats: list[int] = []
    again = threading.Event()

    def beat() -> None:
        beats.append(1)
        if len(beats) == 1:
            raise OSError(28, "No space left on device")
        again.set()

    heart = Heartbeat(beat, 0.01)
    heart.start()
    assert again.wait(20)
    heart.stop()
