"""Creation of the architecture that a search exports, for any model space."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from importlib.metadata import version
from typing import Any

from nni.nas.nn.pytorch import ModelSpace

from ..network.architecture import Architecture
from ..supernet.space import describe_space


def installed_versions() -> dict[str, str]:
    """Return the versions of the packages on which the result of a search depends."""
    return {name: version(name) for name in ("nni-proxyless", "nni", "torch", "pytorch-lightning")}


def exported_architecture(
    supernet: ModelSpace, candidates: Mapping[str, tuple[Any, ...]], choices: Mapping[str, Any], **details: Any
) -> Architecture:
    """Create an architecture that states the versions of the packages that found it.

    Args:
        supernet: Mutated model space. If it does not describe its operators, only its class can build the architecture.
        candidates: Mapping from labels to candidates, as in an NNI sample.
        choices: Mapping from labels to the chosen candidates.
        **details: Further fields of `Architecture`.
    """
    details = {"versions": installed_versions(), **details}
    spec = describe_space(supernet)
    if spec is not None:
        return Architecture.of_space(spec, choices, **details)
    listed = {label: list(of) for label, of in candidates.items()}
    digest = hashlib.sha256(json.dumps(listed, sort_keys=True, default=str).encode()).hexdigest()[:16]
    return Architecture(type(supernet).__qualname__, digest, dict(choices), **details)
