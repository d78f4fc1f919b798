"""Searches outputs with the user's regular expression, in a process that ends itself if the search takes too long.

Python cannot interrupt a search in progress, and some expressions take years on a line of text. This file is also the
program of that process, which is started by its path: it uses the standard library only.
"""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
from collections.abc import Sequence

SECONDS = 10.0
_ALARM = int(getattr(signal, "SIGALRM", 14))


class SearchError(Exception):
    """The search took longer than `SECONDS`, or its process failed. The message says which."""


def last_match(pattern: str, texts: Sequence[str]) -> tuple[int, int, int] | None:
    """Find the last match whose group 1 is not empty, in the first text that has any.

    Args:
        pattern: Regular expression with one group.
        texts: Texts to search.

    Returns:
        Number of the text, and start and end of the group in it; `None` without such a match.

    Raises:
        SearchError: The search took too long, or failed.
    """
    done = subprocess.run(
        [sys.executable, "-I", "-S", __file__, str(SECONDS)],
        input=json.dumps([pattern, *texts]), capture_output=True, text=True, encoding="ascii", check=False,
    )  # fmt: skip
    if done.returncode == -_ALARM:
        raise SearchError(f"needs more than {SECONDS:g} seconds on what was printed")
    if done.returncode != 0:
        raise SearchError(f"cannot be searched for: {(done.stderr.splitlines() or ['no reason given'])[-1][:200]}")
    found = json.loads(done.stdout)
    return None if found is None else (found[0], found[1], found[2])


def _search(pattern: str, texts: Sequence[str]) -> list[int] | None:
    for number, text in enumerate(texts):
        spans = [match.span(1) for match in re.finditer(pattern, text) if match[1]]
        if spans:
            return [number, *spans[-1]]
    return None


if __name__ == "__main__":
    if hasattr(signal, "setitimer"):
        # The default action of the signal ends the process, also in the middle of a search.
        signal.setitimer(signal.ITIMER_REAL, float(sys.argv[1]))
    wanted, *searched = json.load(sys.stdin)
    print(json.dumps(_search(wanted, searched)))
