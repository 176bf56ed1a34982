"""Whether what is installed may be used as we use it: `pip-licenses --from mixed --format json | licences.py`.

    make audit

A licence is allowed if it is permissive. Everything else is an exception, by name, with its licence and the reason.
"""

import json
import re
import sys
from collections.abc import Iterator, Mapping, Sequence

PERMISSIVE = frozenset(
    {
        "0BSD",
        "3-Clause BSD License",
        "Apache 2.0 License",
        "Apache License 2.0",
        "Apache Software License",
        "Apache-2.0",
        "Apache-2.0 WITH LLVM-exception",
        "BSD License",
        "BSD-2-Clause",
        "BSD-3-Clause",
        "BSL-1.0",
        "CC0-1.0",
        "CNRI-Python",
        "ISC",
        "ISC License (ISCL)",
        "MIT",
        "MIT License",
        "PSF-2.0",
        "Python Software Foundation License",
        "Unlicense",
        "Zlib",
    }
)
UNCHANGED = "MPL binds whoever distributes changed files of it; we depend on it and change, copy and ship nothing"
EXCEPTIONS: Mapping[str, tuple[str, str]] = {
    "atheris": ("UNKNOWN", "Apache-2.0 in its repository, left out of its metadata; only `make fuzz` installs it"),
    "certifi": ("Mozilla Public License 2.0", UNCHANGED),
    "httpx-aiohttp": ("Copyright © 2025, Karen Petrosyan", "its metadata hold the text of BSD-3-Clause, not the name"),
    "hypothesis": ("MPL-2.0", f"for tests alone; {UNCHANGED}"),
    "orjson": ("MPL-2.0 AND (Apache-2.0 OR MIT)", UNCHANGED),
    "pathspec": ("Mozilla Public License 2.0", f"for development alone, through mypy and hatchling; {UNCHANGED}"),
    "tqdm": ("MPL-2.0 AND MIT", UNCHANGED),
}
"""By package: how its licence begins, so that another one is noticed, and why it is allowed."""


def is_permissive(licence: str) -> bool:
    """Whether all that `AND` or `;` joins is permissive; of what `OR` joins, one is enough."""
    terms = re.split(r"\s+AND\s+|;", licence)
    return all(any(_name(one) in PERMISSIVE for one in re.split(r"\s+OR\s+", term)) for term in terms)


def _name(text: str) -> str:
    text = text.strip()
    return text if text in PERMISSIVE else text.strip("()")


def problems(packages: Sequence[Mapping[str, str]]) -> Iterator[str]:
    """One line a package whose licence is neither permissive nor an exception."""
    for package in packages:
        name, licence = package["Name"], package["License"].strip()
        begins, _ = EXCEPTIONS.get(name.lower(), ("", ""))
        if not is_permissive(licence) and not (begins and licence.startswith(begins)):
            first = licence.partition("\n")[0]
            yield f"{name} {package['Version']}: {first!r} is not allowed; see EXCEPTIONS in {sys.argv[0]}"


def main() -> int:
    """Report; the exit code."""
    packages = json.load(sys.stdin)
    found = list(problems(packages))
    for problem in found:
        print(f"licences: {problem}")
    for package in packages:
        if package["Name"].lower() in EXCEPTIONS and not is_permissive(package["License"]):
            print(f"licences: {package['Name']} is an exception: {EXCEPTIONS[package['Name'].lower()][1]}")
    if not packages:
        print("licences: FAILED, there are no packages to look at")
    print(f"licences: {len(packages)} packages, {len(found)} not allowed")
    return 1 if found or not packages else 0


if __name__ == "__main__":
    sys.exit(main())
