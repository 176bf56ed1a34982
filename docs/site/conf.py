"""How Sphinx makes the site: `python docs/site/build.py` runs it over the whole repository's Markdown."""

import sys
import tomllib
from pathlib import Path
from typing import Any

from sphinx.application import Sphinx

HERE = Path(__file__).parent
TOP = HERE.parent.parent
sys.path.insert(0, str(HERE))

from navigation import with_toctrees  # noqa: E402

project = "distillkit"
copyright = "the distillkit authors"
release = version = tomllib.loads((TOP / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]

extensions = ["myst_parser", "sphinx_copybutton"]
root_doc = "docs/README"
include_patterns = ["*.md", "docs/**.md", "benchmarks/*.md", "loopback/*.md"]
# Links are named after headings as code hosts do it, so that one link serves both.
myst_heading_anchors = 6
nitpicky = True

copybutton_prompt_text = "$ "
copybutton_only_copy_prompt_lines = True

html_theme = "pydata_sphinx_theme"
html_title = f"distillkit {release}"
templates_path = ["_templates"]
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_sidebars = {"**": ["sidebar-nav-bs"]}
html_show_sourcelink = False
html_copy_source = False
html_theme_options = {
    "navbar_center": [],
    "navbar_end": ["version-switcher", "theme-switcher"],
    # Read by the browser, from the root of this version's folder on.
    "switcher": {"json_url": "../switcher.json", "version_match": release},
    "check_switcher": False,
    "navigation_with_keys": False,
    "footer_start": ["copyright"],
    "footer_end": [],
    "secondary_sidebar_items": ["page-toc"],
}


def add_toctrees(_: Sphinx, name: str, source: list[str]) -> None:
    """Give the first page the navigation that its lists are."""
    if name == root_doc:
        source[0] = with_toctrees(source[0])


def setup(app: Sphinx) -> dict[str, Any]:
    """Register what this project adds."""
    app.connect("source-read", add_toctrees)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
