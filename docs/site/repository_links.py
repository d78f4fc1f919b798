"""Links of pages to files of the repository.

A link to a function, such as `../nni_proxyless/supernet/binary_gates.py#gated_sum`, becomes a link to its place in
the API reference. Links to folders and to other files of the code become plain text: the site has no such pages.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

_FUNCTION = re.compile(r"\]\((?:\.\./)+(nni_proxyless/[\w/]+)\.py#([\w.]+)\)")
_LINK = re.compile(r"(?<!!)\[([^\]]+)\]\(((?!https?:|#|project:)[^)#\s]+)(#[^)]*)?\)")
_PAGES = (".md", ".ipynb", ".png")


def _read(app: Any, document: str, content: list[str]) -> None:
    page = Path(app.env.doc2path(document))
    if page.suffix != ".md":
        return

    def resolved(match: re.Match[str]) -> str:
        target = (page.parent / match[2]).resolve()
        inside = str(target.relative_to(app.srcdir)).removesuffix(".md") in app.env.found_docs
        return match[0] if inside or target.suffix == ".png" else match[1]

    text = _FUNCTION.sub(lambda m: f"](#{m[1].replace('/', '.')}.{m[2]})", content[0])
    content[0] = _LINK.sub(resolved, text)


def setup(app: Any) -> dict[str, bool]:
    """Rewrite the links when a page is read."""
    app.connect("source-read", _read)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
