"""Settings of the documentation; `make docs` builds it into build/docs."""

from pcequi import __version__

project = "pcequi"
author = "the pcequi maintainers"
copyright = "MIT licence"
version = release = __version__

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx.ext.mathjax",
    "sphinx.ext.viewcode",
]
myst_enable_extensions = ["dollarmath", "colon_fence"]
myst_heading_anchors = 3

autodoc_member_order = "bysource"
autodoc_typehints = "none"  # the docstrings say what the tensors are
autodoc_preserve_defaults = True
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_ivar = True
napoleon_use_rtype = False  # what is returned is described in words
napoleon_custom_sections = ["Shapes", "Source"]

html_theme = "furo"
html_title = f"pcequi {__version__}"
html_theme_options = {"navigation_with_keys": True}
html_show_copyright = False
templates_path: list[str] = []
exclude_patterns: list[str] = []


def _plain_bars(app, what, name, obj, options, lines):
    """A norm such as |a - b| is no reST substitution: its bars are escaped."""
    for number, line in enumerate(lines):
        code = line.split("``")
        code[::2] = [text.replace("|", "\\|") for text in code[::2]]
        lines[number] = "``".join(code)


def setup(app):
    """Called by Sphinx."""
    app.connect("autodoc-process-docstring", _plain_bars)
