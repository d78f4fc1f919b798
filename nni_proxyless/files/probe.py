"""The check whether anything can be written into a folder, before something slow is done for the sake of it."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from ..errors import OF_THE_MACHINE, clipped

_CONTENT = b" " * 4096


def why_not_writable(folder: Path) -> str | None:
    """Say why nothing can be written into a folder, or into the nearest one above it that exists.

    Permissions alone do not tell, so a small file is written and removed again. A full disk is not a reason: whether
    there is enough room shows when the files are written, and the user has made no mistake.

    Args:
        folder: Folder, which need not exist yet.

    Returns:
        The reason for a message; `None` if there is none.
    """
    existing = next(part for part in (folder.absolute(), *folder.absolute().parents) if os.path.lexists(part))
    if not existing.is_dir():
        return f"{clipped(str(existing))} is not a folder"
    try:
        with tempfile.TemporaryFile(dir=existing) as file:
            file.write(_CONTENT)
            file.flush()
    except OSError as reason:
        if reason.errno not in OF_THE_MACHINE:
            return f"nothing can be written into {clipped(str(existing))}: {reason.strerror}"
    return None
