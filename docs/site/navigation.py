"""The site's navigation is the list of pages in docs/README.md: a heading a part, a link a page.

So the list is kept once, and reads on a code host as it does here.
"""

import re
from collections.abc import Iterator
from pathlib import PurePosixPath

LINK = re.compile(r"^- \[[^\]]+\]\(([^)#]+)\.md\)", re.MULTILINE)
COMMENT = re.compile(r"<!--.*?-->", re.DOTALL)


def parts(text: str) -> Iterator[tuple[str, list[str]]]:
    """Heading, and the pages below it as links name them, without `.md`."""
    for section in COMMENT.sub("", text).split("\n## ")[1:]:
        heading, _, body = section.partition("\n")
        yield heading.strip(), LINK.findall(body)


def with_toctrees(text: str) -> str:
    """The page with a hidden toctree at its end for each of its parts."""
    lines = [text.rstrip()]
    for heading, pages in parts(text):
        entries = "\n".join(pages)
        lines.append(f"```{{toctree}}\n:hidden:\n:caption: {heading}\n\n{entries}\n```")
    return "\n\n".join(lines) + "\n"


def listed(folder: PurePosixPath, text: str) -> set[str]:
    """The pages that a list in `folder` names, as paths from the repository's top."""
    return {normal(folder / f"{page}.md") for _, pages in parts(text) for page in pages}


def normal(path: PurePosixPath) -> str:
    """A path without `..`, which only leads upwards inside the repository."""
    kept: list[str] = []
    for part in path.parts:
        if part == "..":
            kept.pop()
        else:
            kept.append(part)
    return "/".join(kept)
