"""How Sphinx makes the site: `make docs-build` runs it from the repository's top, with warnings as errors."""

import sys
from importlib.metadata import version as version_of
from pathlib import Path

from sphinx.application import Sphinx

HERE = Path(__file__).parent
TOP = HERE.parent.parent
sys.path.insert(0, str(HERE))

from navigation import with_toctrees  # noqa: E402

project = "distillkit"
copyright = "the distillkit authors, Apache-2.0"  # noqa: A001
release = version = "0.1.0"

extensions = ["myst_parser", "sphinx_copybutton"]
root_doc = "docs/README"
include_patterns = ["*.md", "docs/**.md", "benchmarks/*.md", "loopback/*.md"]

# Headings are linked to as code hosts name them, so one link serves both.
myst_heading_anchors = 6
myst_enable_extensions = ["strikethrough"]
suppress_warnings = ["myst.strikethrough"]
nitpicky = True

html_theme = "pydata_sphinx_theme"
html_title = f"distillkit {release}"
templates_path = ["_templates"]
html_static_path = ["_static"]
html_sidebars = {"**": ["sidebar-nav-bs"]}
html_show_sourcelink = False
html_copy_source = False
html_theme_options = {
    "navbar_center": [],
    "navbar_end": ["version-switcher", "theme-switcher"],
    "switcher": {"json_url": "/switcher.json", "version_match": release},
    "check_switcher": False,
    "show_prev_next": True,
    "navigation_with_keys": False,
    "show_nav_level": 1,
    "footer_end": [],
    "secondary_sidebar_items": ["page-toc"],
}


def add_toctrees(_: Sphinx, name: str, source: list[str]) -> None:
    """Give the first page the navigation that its lists are."""
    if name == root_doc:
        source[0] = with_toctrees(source[0])


def setup(app: Sphinx) -> None:
    """Register what this project adds."""
    app.connect("source-read", add_toctrees)
