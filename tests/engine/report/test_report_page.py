"""The page as a whole: nothing gets out of its place, nothing is loaded, and everything has its name and its text."""

import base64
import hashlib
import json
import re
from itertools import pairwise
from pathlib import Path

import pytest
from helpers.html_outline import Outline, outline
from helpers.written_runs import lost, step, write_run
from jinja2 import UndefinedError
from markupsafe import Markup

import distillkit
from distillkit.errors import InputError
from distillkit.report.html_templates import TEMPLATES, coded, json_in_html, rendered
from distillkit.report.page import MOST_BYTES, asset, page_html
from distillkit.report.read_run import read_run
from distillkit.report.report_page import report_html
from distillkit.report.section import ReportSection

EVIL = (
    "</script><script>alert(1)</script><img src=x onerror=alert(2)>\"' --><!--\u202eevil\u2066\x00\x1b[31m\ud800"
    "\u2028]]>&amp;"
)
"""HTML, a script, quotes, a comment, text that turns direction, control characters, half of a pair, a line end."""
INVISIBLE = re.compile("[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
VENDORED = {
    "uPlot.iife.min.js": "19c8d4c6ad88929a79f4ae49d6f7161566dfd0ba3d15cc495e974f787eb78f1f",
    "uPlot.min.css": "df630c6a8d6f8eeaff264b50f73ce5b114f646ffd9a0bb74f049b0a00135fa04",
    "uPlot.LICENSE": "8f989229699b4fe2f1a0432d0e9edc338a8a911e250e2d1b01ecd770a5f5b1bd",
}


def policy_of(page: Outline) -> str:
    """The Content-Security-Policy of a page."""
    (policy,) = (e.attributes["content"] for e in page.all("meta") if e.attributes.get("http-equiv"))
    return policy


def test_what_a_run_holds_is_text_and_never_html(tmp_path: Path) -> None:
    route = {f"teacher_route/{EVIL}/{name}": 0.3 for name in ("reverse_kl", "tokens", "weight", "scored")}
    run = write_run(
        tmp_path / "run",
        [step(number, **route, **{f"odd/{EVIL}": 1.0}) for number in (1, 2)],
        config={"student": {"name": EVIL, "model": EVIL}, EVIL: {EVIL: EVIL}},
        ledger=[lost(EVIL, EVIL, teacher=EVIL)],
        log=f"2026-11-29 10:00:00,000 WARNING {EVIL.replace(chr(0xD800), '')}\n",
        name=EVIL,
        status="failed",
        error=EVIL,
        provenance={"command": EVIL, "started": EVIL, "versions": {EVIL: EVIL}, "plugins": {EVIL: {EVIL: EVIL}}},
    )
    html = report_html([read_run(run)])
    page = outline(html)  # every element ends where it should
    harmless = outline(report_html([read_run(write_run(tmp_path / "other"))]))
    assert not page.all("img")
    assert {each.name for each in page.elements} <= {each.name for each in harmless.elements} | {
        "ul",
        "li",
        "pre",
        "code",
    }
    assert len(page.all("script")) == len(harmless.all("script"))
    assert not [each for each in page.elements if any(name.startswith("on") for name in each.attributes)]
    assert "alert(1)" in page.all("h1")[0].text  # it is there to be read
    assert not INVISIBLE.search(html)
    html.encode("utf-8")
    drawn = page.data("curves")
    assert EVIL in {curve["label"] for chart in drawn["charts"] for curve in chart["curves"]}  # whole, inside of JSON


@pytest.mark.parametrize("template", sorted(TEMPLATES.list_templates()))
def test_no_template_lets_a_value_through_unescaped(template: str) -> None:
    source = (Path(TEMPLATES.loader.searchpath[0]) / template).read_text(encoding="utf-8")  # type: ignore[union-attr]
    assert not re.search(r"\|\s*safe|autoescape|Markup", source)
    assert not re.search(r"style\s*=|\son\w+\s*=|javascript:", source)  # the policy would stop these


def test_a_value_that_a_template_lacks_is_an_error() -> None:
    with pytest.raises(UndefinedError):
        rendered("settings.html", rows=[("a", ["1"])], some=[])


def test_code_in_a_sentence_is_escaped_too() -> None:
    assert coded("say `<b>` & `x`") == "say <code>&lt;b&gt;</code> &amp; <code>x</code>"
    assert coded("one ` <b>\u202e") == "one ` &lt;b&gt;\\u202e"


def test_json_in_html_comes_back_as_it_was() -> None:
    value = {"text": EVIL, EVIL: [1, 0.5, None, True, "ä語\U0001f600"]}
    text = json_in_html(value)
    assert not set("<>&\u2028\ud800") & set(text)
    assert json.loads(text) == value
    with pytest.raises(ValueError, match="not JSON compliant"):
        json_in_html({"x": float("nan")})


def test_the_page_loads_nothing_and_runs_only_what_it_names(tmp_path: Path) -> None:
    html = report_html([read_run(write_run(tmp_path / "run"))])
    page = outline(html)
    policy = policy_of(page)
    rules = dict(rule.split(" ", 1) for rule in policy.split("; "))
    assert rules["default-src"] == "'none'"
    assert "connect-src" not in rules
    assert "unsafe" not in policy
    scripts = [e.text for e in page.all("script") if "type" not in e.attributes]
    for kind, texts in (("script-src", scripts), ("style-src", [e.text for e in page.all("style")])):
        digests = [base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() for text in texts]
        assert rules[kind] == " ".join(f"'sha256-{digest}'" for digest in digests)
    assert not page.all("link")
    assert not [e for e in page.elements if "src" in e.attributes or "style" in e.attributes]
    assert all(e.attributes["href"].startswith("#") for e in page.all("a"))
    assert not re.search(r"url\(|@import", "".join(e.text for e in page.all("style")))


def test_a_page_that_a_server_gives_may_ask_that_server_alone() -> None:
    assert "connect-src 'self'" in policy_of(outline(page_html("run", "", [], connects=True)))


def test_a_library_is_what_its_note_says_it_is() -> None:
    folder = Path(distillkit.__file__).parent / "report" / "vendor"
    note = (folder / "README.md").read_text(encoding="utf-8")
    for name, digest in VENDORED.items():
        assert hashlib.sha256((folder / name).read_bytes()).hexdigest() == digest
        assert digest in note
    assert {path.name for path in folder.iterdir()} == {*VENDORED, "README.md"}


def test_an_asset_that_would_end_its_element_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "assets").mkdir()
    (tmp_path / "assets" / "bad.js").write_text("'</SCRIPT>'", encoding="utf-8")
    monkeypatch.setattr("distillkit.report.page.HERE", tmp_path)
    with pytest.raises(ValueError, match="would end the element"):
        asset("bad.js")


def test_sections_stand_in_order_with_their_assets_once() -> None:
    first = ReportSection("one", "One <b>", Markup("<p>x</p>"), {"a": 1}, ("uPlot.min.css",), ("uPlot.iife.min.js",))
    second = ReportSection("two", "Two", Markup("<p>y</p>"), None, ("uPlot.min.css",), ("uPlot.iife.min.js",))
    page = outline(page_html("run", "", [first, second]))
    assert [e.text for e in page.all("h2")] == ["One <b>", "Two"]
    assert [e.attributes["href"] for e in page.all("a")[1:]] == ["#one", "#two"]
    assert page.data("one") == {"a": 1}
    assert len(page.all("style")) == 2
    assert len([e for e in page.all("script") if "type" not in e.attributes]) == 2


def test_a_screen_reader_finds_its_way(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", ledger=[lost("r1", "timeout")], log="2026-11-29 10:00:00,000 WARNING look\n")
    page = outline(report_html([read_run(run)]))
    assert [len(page.all(name)) for name in ("h1", "main", "header")] == [1, 1, 1]
    assert all(e.attributes.get("aria-label") for e in page.all("nav"))
    ids = [e.attributes["id"] for e in page.elements if "id" in e.attributes]
    assert len(ids) == len(set(ids))
    assert all(e.attributes["aria-labelledby"] in ids for e in page.all("section"))
    assert len(page.all("table")) == len(page.all("caption"))
    assert all("scope" in e.attributes for e in page.all("th"))
    plots = [e for e in page.all("div") if e.attributes.get("class") == "plot"]
    assert plots
    assert all(e.attributes["role"] == "img" and "step" in e.attributes["aria-label"] for e in plots)
    scrolling = [e for e in page.all("div") if e.attributes.get("class") == "scroll"]
    assert all(e.attributes["tabindex"] == "0" and e.attributes["aria-label"] for e in scrolling)
    levels = [int(e.name[1]) for e in page.elements if re.fullmatch("h[1-6]", e.name)]
    assert all(after <= before + 1 for before, after in pairwise(levels))


def test_a_long_run_fits_into_the_page(tmp_path: Path) -> None:
    many = {f"other/{number}": 0.123456789 for number in range(40)}
    run = write_run(tmp_path / "run", [step(number, **many) for number in range(1, 10_001)])
    html = report_html([read_run(run), read_run(run)])
    assert len(html.encode()) < MOST_BYTES / 2


def test_it_is_written_into_the_run_or_where_it_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    first, second = write_run(Path("a")), write_run(Path("b"), name="other")
    assert distillkit.write_report(first) == Path("a/report.html")
    assert distillkit.write_report(first, str(second)) == Path("report.html")
    assert distillkit.write_report("a", out="x.html").is_file()
    assert "2 runs: run, other" in Path("report.html").read_text(encoding="utf-8")
    with pytest.raises(InputError, match="name the directory of a run"):
        distillkit.write_report()
    with pytest.raises(InputError, match=r"no such directory"):
        distillkit.write_report("c")
    with pytest.raises(InputError, match=r"nowhere/x.html cannot be written"):
        distillkit.write_report("a", out="nowhere/x.html")
