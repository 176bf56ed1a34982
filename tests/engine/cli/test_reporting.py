"""What commands say: sentences end their lines between words on a terminal; of several ranks one speaks."""

import time
from io import StringIO

import pytest
import typer

from distillkit.cli import reporting
from distillkit.cli.reporting import Terminal
from distillkit.errors import InputError

PATH = "/a/very/long/path/without-a-place-to-break-it/" + "x" * 60
SAID = (
    f"note: 3 rows are the same as an earlier row, such as {PATH}:3; they count as often as they stand there; take "
    "them out if that is not meant\n"
    "columns of these rows: question, answer, level, topic, and many more that are of no use to anyone who reads this\n"
    '  format: {prompt: "{{ question }}", system: "a line to copy that is longer than the terminal is wide, by much"}'
)


class Screen(StringIO):
    """What a terminal shows."""

    def isatty(self) -> bool:
        return True


def said(text: str, file: StringIO, width: int, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("COLUMNS", str(width))
    terminal = Terminal(stderr=False)
    terminal.file = file
    terminal.say(text)
    return file.getvalue()


@pytest.mark.parametrize("width", [80, 140])
def test_lines_end_between_words_on_a_terminal(width: int, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = said(SAID, Screen(), width, monkeypatch).splitlines()
    assert any(PATH in line for line in lines)
    assert all(len(line) <= width for line in lines if PATH not in line and "format:" not in line)
    assert lines[-1] == SAID.splitlines()[-1]
    assert [line[:2] for line in lines if line[:2] != "  "] == ["no", "co"]
    assert " ".join(line.strip() for line in lines) == " ".join(line.strip() for line in SAID.splitlines())


def test_they_stay_as_they_are_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    assert said(SAID, StringIO(), 80, monkeypatch) == f"{SAID}\n"


def test_a_rank_says_what_it_alone_found_once_rank_0_could_have_said_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    waited: list[float] = []
    monkeypatch.setattr(time, "sleep", waited.append)
    for terminal in (reporting.OUT, reporting.ERR):
        monkeypatch.setattr(terminal, "quiet", False)  # to be set back
    for name, value in (("RANK", "1"), ("WORLD_SIZE", "2"), ("LOCAL_RANK", "1")):
        monkeypatch.setenv(name, value)

    def command() -> None:
        with reporting.reporting():
            reporting.OUT.print("not said twice")
            raise InputError("rows.jsonl: no such file")

    with pytest.raises(typer.Exit) as ended:
        command()
    assert (ended.value.exit_code, waited) == (2, [reporting.RANK_0_SPEAKS_S])
    said = capsys.readouterr()
    assert (said.out, said.err) == ("", "rank 1 of 2, and no other so far:\nerror: rows.jsonl: no such file\n")


@pytest.mark.parametrize("width", [40, 80])
def test_a_command_to_be_copied_stays_a_line_on_every_terminal(width: int, monkeypatch: pytest.MonkeyPatch) -> None:
    command = "  distillkit run config.yaml sampling.completions_per_prompt=8 train.prompt_groups_per_step=64 --resume"
    lines = said(f"go on after step 3 with:\n{command}", Screen(), width, monkeypatch).splitlines()
    assert lines[-1] == command
