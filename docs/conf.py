"""Settings of Sphinx, which builds this documentation: `make docs`."""

from importlib.metadata import version as installed_version

project = "wsoffload"
author = "The wsoffload authors"
copyright = "2026, The wsoffload authors"  # noqa: A001 - the name is Sphinx's
release = version = installed_version("wsoffload")

extensions = ["myst_parser", "sphinx.ext.autodoc"]
myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 3

autodoc_member_order = "bysource"
autodoc_typehints = "signature"

exclude_patterns = ["_build"]

html_theme = "furo"
html_title = f"wsoffload {release}"
