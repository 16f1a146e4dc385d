"""Settings of the documentation; `make docs` builds it into build/docs."""

import re

from docutils import nodes
from docutils.utils.math.latex2mathml import tex2mathml
from sphinx.util import logging

from pcequi import __version__

logger = logging.getLogger(__name__)

project = "pcequi"
author = "the pcequi maintainers"
copyright = "MIT licence"
version = release = __version__

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
]
myst_enable_extensions = ["dollarmath", "colon_fence"]
myst_heading_anchors = 3

autodoc_member_order = "bysource"
autodoc_typehints = "none"  # the docstrings say what the tensors are
autodoc_preserve_defaults = True
autodoc_inherit_docstrings = False  # PyTorch documents its own
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_ivar = True
napoleon_use_rtype = False  # what is returned is described in words
napoleon_custom_sections = ["Shapes", "Source"]

html_math_renderer = "mathml"
html_theme = "furo"
html_title = f"pcequi {__version__}"
html_theme_options = {"navigation_with_keys": True}
html_show_copyright = False
templates_path: list[str] = []
exclude_patterns: list[str] = []


def _plain_bars(app, what, name, obj, options, lines):
    """A norm such as |a - b| is no reST substitution: its bars are escaped."""
    outside = r"(``.*?``|`[^`]*`)|(?<!\\)\|"
    lines[:] = [re.sub(outside, lambda found: found[1] or "\\|", line) for line in lines]


_STYLE = {False: "overflow: visible", True: "overflow: visible; margin: 1em 0"}


def _formula(block: bool):
    """Formulae as MathML, which browsers draw without a script from elsewhere."""

    def visit(writer, node):
        # Brackets grow by themselves, and the converter does not know these commands.
        text = re.sub(r"\\[bB]ig(?![a-z])", "", node.astext())
        try:
            drawn = tex2mathml(text, as_block=block)
            # The theme gives formulae a scroll bar of their own, for a pixel too much.
            writer.body.append(drawn.replace("<math ", f'<math style="{_STYLE[block]}" ', 1))
        except Exception as error:  # each formula that it cannot read fails in its own way
            logger.warning("formula %r: %s", text, error, location=node)
        raise nodes.SkipNode

    return visit, None


def setup(app):
    """Called by Sphinx."""
    app.connect("autodoc-process-docstring", _plain_bars)
    app.add_html_math_renderer("mathml", _formula(False), _formula(True))
