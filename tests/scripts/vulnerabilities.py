"""Known vulnerabilities of everything that is installed, by pip-audit: `vulnerabilities.py PIP_AUDIT < pip-list.json`.

    make audit

pip-audit says "No known vulnerabilities found", and ends well, where its service knows none of the packages, as behind
a mirror that has the packages alone. Here a package that was not looked up is a failure.
"""

import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

OURS = "distillkit"
SHOWN = 5


def requirements(packages: Sequence[Mapping[str, str]]) -> Iterator[str]:
    """`name==version`; a build's own version (2.13.0+cpu) is none that a service knows."""
    for package in packages:
        if package["name"].lower() != OURS:
            yield f"{package['name']}=={package['version'].partition('+')[0]}"


def ask(pip_audit: str, wanted: Sequence[str]) -> Sequence[Mapping[str, Any]] | None:
    """What pip-audit found of each package; None if it could not ask, and then it has said why."""
    with tempfile.TemporaryDirectory() as folder:
        listed = Path(folder) / "requirements.txt"
        listed.write_text("\n".join(wanted) + "\n", encoding="utf-8")
        options = ["--requirement", str(listed), "--no-deps", "--disable-pip", "--progress-spinner", "off"]
        done = subprocess.run([pip_audit, *options, "--format", "json"], capture_output=True, text=True, check=False)
    try:
        found: Sequence[Mapping[str, Any]] = json.loads(done.stdout)["dependencies"]
    except (ValueError, KeyError):
        print("vulnerabilities:", (done.stderr.strip().splitlines() or ["pip-audit said nothing"])[-1])
        return None
    return found


def problems(wanted: Sequence[str], found: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """One line a vulnerability, and one for all the packages that were not looked up."""
    for package in found:
        for known in package.get("vulns", ()):
            fixed = ", ".join(known["fix_versions"]) or "no version yet"
            yield f"{package['name']} {package['version']}: {known['id']}, fixed in {fixed}"
    looked_up = {package["name"].lower().replace("_", "-") for package in found if "skip_reason" not in package}
    left = [one for one in wanted if one.partition("==")[0].lower().replace("_", "-") not in looked_up]
    if left:
        some = ", ".join(left[:SHOWN]) + (", ..." if len(left) > SHOWN else "")
        yield f"NOT AUDITED: the service knows nothing of {len(left)} of {len(wanted)} packages ({some})"


def main() -> int:
    """Report; the exit code."""
    wanted = list(requirements(json.load(sys.stdin)))
    found = ask(sys.argv[1], wanted)
    if found is None:
        print("vulnerabilities: FAILED, NOTHING WAS AUDITED: the service cannot be asked from here")
        return 1
    lines = list(problems(wanted, found))
    for line in lines:
        print(f"vulnerabilities: {line}")
    print(f"vulnerabilities: {'FAILED' if lines or not wanted else 'none known'}, {len(wanted)} packages")
    return 1 if lines or not wanted else 0


if __name__ == "__main__":
    sys.exit(main())
