"""What is installed is looked at: `make audit`."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from scripts import licences, vulnerabilities

HERE = Path(__file__).parent


@pytest.mark.parametrize(
    ("licence", "allowed"),
    [
        ("MIT", True),
        ("BSD-3-Clause AND (MIT OR GPL-3.0)", True),
        ("Apache Software License; MIT License", True),
        ("Apache-2.0 OR GPL-2.0", True),
        ("MIT AND GPL-3.0", False),
        ("GNU General Public License v3 (GPLv3)", False),
        ("UNKNOWN", False),
        ("", False),
    ],
)
def test_licences_are_permissive_or_they_are_not(licence: str, allowed: bool) -> None:
    assert licences.is_permissive(licence) is allowed
    package = {"Name": "some", "Version": "1", "License": licence}
    assert bool(list(licences.problems([package]))) is not allowed


def test_an_exception_is_for_one_licence() -> None:
    package = {"Name": "Hypothesis", "Version": "1", "License": "MPL-2.0"}
    assert not list(licences.problems([package]))
    (problem,) = licences.problems([{**package, "License": "AGPL-3.0"}])
    assert problem.startswith("Hypothesis 1: 'AGPL-3.0' is not allowed")


def test_what_was_not_looked_up_is_a_failure() -> None:
    wanted = list(vulnerabilities.requirements([{"name": "a_b", "version": "1+cpu"}, {"name": "c", "version": "2"}]))
    assert wanted == ["a_b==1", "c==2"]
    fine = {"name": "a-b", "version": "1", "vulns": []}
    skipped = {"name": "c", "skip_reason": "Dependency not found"}
    bad = {"name": "c", "version": "2", "vulns": [{"id": "CVE-1", "fix_versions": ["3"]}]}
    assert list(vulnerabilities.problems(wanted, [fine, bad])) == ["c 2: CVE-1, fixed in 3"]
    (problem,) = vulnerabilities.problems(wanted, [fine, skipped])
    assert problem == "NOT AUDITED: the service knows nothing of 1 of 2 packages (c==2)"
    assert list(vulnerabilities.problems(wanted, [fine]))


FINE = {"dependencies": [{"name": "a", "version": "1", "vulns": []}]}
SKIPPED = {"dependencies": [{"name": "a", "skip_reason": "not found"}]}


@pytest.mark.parametrize(
    ("answer", "code", "said"),
    [
        (f"echo '{json.dumps(FINE)}'", 0, "none known, 1 packages"),
        (f"echo '{json.dumps(SKIPPED)}'", 1, "NOT AUDITED"),
        ("echo 'ConnectionError: no such host' >&2; exit 1", 1, "no such host"),
        ("exit 0", 1, "NOTHING WAS AUDITED"),
    ],
)
def test_an_audit_that_could_not_ask_says_so_and_fails(tmp_path: Path, answer: str, code: int, said: str) -> None:
    fake = tmp_path / "pip-audit"
    fake.write_text(f"#!/bin/sh\n{answer}\n", encoding="utf-8")
    fake.chmod(0o755)
    command = [sys.executable, str(HERE / "scripts" / "vulnerabilities.py"), str(fake)]
    listed = json.dumps([{"name": "a", "version": "1"}, {"name": "distillkit", "version": "0"}])
    done = subprocess.run(command, input=listed, capture_output=True, text=True, check=False)
    assert done.returncode == code
    assert said in done.stdout
