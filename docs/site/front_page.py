"""The start of the site: `index.html` leads to the start page, whose navigation lists the pages that exist."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

_PAGE = """<!DOCTYPE html>
<html lang="en">
<head><meta charset="utf-8"><title>nni-proxyless</title>
<meta http-equiv="refresh" content="0; url=docs/index.html"></head>
<body><a href="docs/index.html">Documentation of nni-proxyless</a></body>
</html>
"""


def _drop_empty_patterns(app: Any, document: str, content: list[str]) -> None:
    """Remove patterns such as `your_images*` that match no page from the navigation; Sphinx would warn of them."""
    if document == app.config.root_doc:
        folder = Path(app.env.doc2path(document)).parent
        content[0] = re.sub(
            r"^([\w/]+\*)\n",
            lambda match: match[0] if any(folder.glob(match[1])) else "",
            content[0],
            flags=re.MULTILINE,
        )


def _write(app: Any, error: Exception | None) -> None:
    if error is None and app.builder.format == "html":
        (Path(app.outdir) / "index.html").write_text(_PAGE, encoding="utf-8")


def setup(app: Any) -> dict[str, bool]:
    """Check the navigation when the start page is read, and write the page when everything else is built."""
    app.connect("source-read", _drop_empty_patterns)
    app.connect("build-finished", _write)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
