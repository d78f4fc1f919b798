"""Accuracies of networks with the weights of a search, which several processes share through a file.

The targets and budgets of a shared search compare many of the same networks. Each network is evaluated once.
"""

from __future__ import annotations

import hashlib
import json
import logging
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import filelock

from ..errors import DamagedFileError, ProxylessError
from ..files.reading import read_mapping
from ..files.writing import write_json, writing

_log = logging.getLogger(__name__)
SCHEMA = "nni-proxyless/accuracies@1"
_EXCHANGED_AFTER_S = 1.0  # so that the file is not rewritten for each network that takes milliseconds


class KeptAccuracies:
    """Accuracies by network that were computed under equal conditions, by this process and by others.

    The file has the accuracies of all conditions. It is written atomically, under a lock, and with a checksum. A
    damaged file is written again. If the file cannot be written, this process continues without it.

    Args:
        path: Path of the file. It need not exist, but its folder must.
        conditions: Everything that an accuracy depends on besides the network, as the content of a JSON file.

    Attributes:
        known: Accuracy of each network by its name, between 0 and 1.
    """

    def __init__(self, path: Path, conditions: Mapping[str, Any]) -> None:
        self._path = path
        self._key = hashlib.sha256(json.dumps(conditions, sort_keys=True).encode()).hexdigest()
        self._new: dict[str, float] = {}
        self._writes = True
        self._warned = False
        self._exchanged = time.monotonic()
        self.known: dict[str, float] = dict(self._read().get(self._key, {}))

    def add(self, network: str, accuracy: float) -> None:
        """Add the accuracy of a network, and after a second exchange those that are new with other processes."""
        self.known[network] = self._new[network] = accuracy
        if time.monotonic() - self._exchanged > _EXCHANGED_AFTER_S:
            self.exchange()

    def exchange(self) -> None:
        """Write the accuracies that are new, and read those that other processes have written meanwhile."""
        if not self._writes or not self._new:
            return
        try:
            with writing(self._path), filelock.FileLock(f"{self._path}.lock"):
                content = self._read()
                self.known = {**content.get(self._key, {}), **self.known}
                content[self._key] = self.known
                write_json(self._path, {"schema": SCHEMA, "checksum": _checksum(content), "accuracies": content})
        except (ProxylessError, OSError, NotImplementedError) as reason:  # file systems without locks
            self._writes = False
            _log.warning("accuracies of finalists are not kept for other targets and budgets: %s", reason)
        self._new = {}
        self._exchanged = time.monotonic()

    def _read(self) -> dict[str, dict[str, float]]:
        if not self._path.exists():
            return {}
        try:
            content = read_mapping(self._path, "accuracies", DamagedFileError)
            found: Any = content.get("accuracies")
            good = content.get("schema") == SCHEMA and isinstance(found, dict)
            if not good or content.get("checksum") != _checksum(found):
                raise DamagedFileError(f"{self._path} is damaged, or it is not of {SCHEMA}")
        except DamagedFileError as reason:
            if not self._warned:
                _log.warning("%s; its networks are evaluated again", reason)
            self._warned = True
            return {}
        return found  # type: ignore[no-any-return]


def _checksum(accuracies: Any) -> str:
    return hashlib.sha256(json.dumps(accuracies, sort_keys=True).encode()).hexdigest()
