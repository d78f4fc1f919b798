"""Registers the tuner `LatencyBudget` in NNI's registry of algorithms.

The registry is the file `$NNI_CONFIG_DIR/registered_algorithms.yml`.
"""

from __future__ import annotations

from typing import Literal

from ..errors import RunError

TUNER = "LatencyBudget"
_NOT_WRITABLE = "NNI's registry cannot be written: {}; set NNI_CONFIG_DIR to a writable folder"
CLASS = "nni_proxyless.nni_bridge.tuner.LatencyBudget"


def registered_class() -> str | None:
    """The class registered under the tuner's name in NNI's registry; `None` if there is none."""
    from nni.tools.package_utils import get_algo_meta

    meta = get_algo_meta(TUNER)
    return None if meta is None else str(meta.class_name)


def register() -> Literal["registered", "already registered"]:
    """Add the tuner to NNI's registry, replacing an entry of the same name that names another class.

    Raises:
        RunError: The registry cannot be written.
    """
    from nni.tools.package_utils import AlgoMeta, register_algo_meta

    if registered_class() == CLASS:
        return "already registered"
    meta = AlgoMeta(
        name=TUNER,
        class_name=CLASS,
        algo_type="tuner",
        accept_class_args=True,
        class_args=None,
        validator_class_name=None,
        alias=None,
        is_advisor=False,
        is_builtin=False,
        nni_version=None,
    )
    try:
        register_algo_meta(meta)
    except OSError as reason:
        raise RunError(_NOT_WRITABLE.format(reason)) from reason
    return "registered"


def unregister() -> Literal["unregistered", "was not registered"]:
    """Remove the tuner from NNI's registry, if it is registered.

    Raises:
        RunError: The registry cannot be written.
    """
    from nni.tools.package_utils import unregister_algo_meta

    if registered_class() is None:
        return "was not registered"
    try:
        unregister_algo_meta(TUNER)
    except OSError as reason:
        raise RunError(_NOT_WRITABLE.format(reason)) from reason
    return "unregistered"
