from distillkit.data.counted import counted


def test_one_is_one_and_the_others_are_several() -> None:
    assert [counted(number, "row") for number in (0, 1, 2, 2048)] == ["0 rows", "1 row", "2 rows", "2,048 rows"]
    assert [counted(number, "entry", "entries") for number in (1, 2)] == ["1 entry", "2 entries"]
