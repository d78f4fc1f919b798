"""Settings of the documentation site. `make docs` builds it into `build/site`, without a network.

The root of the repository is the source folder, so that links between pages, benchmarks and experiments are the same
in the repository and on the site.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
REPOSITORY = HERE.parents[1]
sys.path[:0] = [str(HERE), str(REPOSITORY)]
# The notebook's process uses this code, and NNI keeps its experiment in the build folder.
os.environ["PYTHONPATH"] = str(REPOSITORY)
os.environ.setdefault("XDG_CACHE_HOME", str(Path.home() / ".cache"))
(REPOSITORY / "build" / "home").mkdir(parents=True, exist_ok=True)
os.environ["HOME"] = str(REPOSITORY / "build" / "home")

import nni_proxyless  # noqa: E402

project = "nni-proxyless"
author = "The nni-proxyless developers"
copyright = author
version = release = nni_proxyless.__version__
language = "en"
smartquotes = False  # it would join the dashes of options

extensions = [
    "myst_nb",  # Markdown pages, and the notebook, which the build executes
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx_argparse_cli",
    "mathml",
    "markdown_docstrings",
    "repository_links",
    "front_page",
]
root_doc = "docs/index"
include_patterns = [
    "docs/*.md",
    "docs/*.ipynb",
    "docs/api/*.md",
    "benchmarks/README.md",
    "benchmarks/**/README.md",
    "benchmarks/HISTORY.md",
    "benchmarks/cost/end_to_end.md",
    "experiments/*/README.md",
    "CHANGELOG.md",
    "CONTRIBUTING.md",
]
exclude_patterns = [".venv", "build", "dist", "results", "tests", "nni_proxyless", ".*", "**/results/**"]

html_theme = "furo"
html_title = "nni-proxyless"
html_static_path = ["static"]
html_css_files = ["site.css"]
html_copy_source = False
html_show_sphinx = False
html_theme_options = {"navigation_with_keys": True}

myst_enable_extensions = ["dollarmath", "colon_fence"]
myst_heading_anchors = 4
myst_update_mathjax = False  # equations become MathML when the site is built (mathml.py)
nb_execution_mode = "force"
nb_execution_raise_on_error = True
nb_execution_timeout = 120
nb_merge_streams = True
nb_output_stderr = "remove"

autodoc_inherit_docstrings = False
autodoc_member_order = "bysource"
autodoc_typehints = "description"
autodoc_typehints_description_target = "documented"
autodoc_typehints_format = "short"
autodoc_class_signature = "mixed"
python_use_unqualified_type_names = True
napoleon_numpy_docstring = False
napoleon_use_ivar = True
