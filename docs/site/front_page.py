"""`index.html` at the top of the site, which leads to the start page in `docs/`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

_PAGE = """<!DOCTYPE html>
<html lang="en">
<head><meta charset="utf-8"><title>nni-proxyless</title>
<meta http-equiv="refresh" content="0; url=docs/index.html"></head>
<body><a href="docs/index.html">Documentation of nni-proxyless</a></body>
</html>
"""


def _write(app: Any, error: Exception | None) -> None:
    if error is None and app.builder.format == "html":
        (Path(app.outdir) / "index.html").write_text(_PAGE, encoding="utf-8")


def setup(app: Any) -> dict[str, bool]:
    """Write the page when everything else is built."""
    app.connect("build-finished", _write)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
