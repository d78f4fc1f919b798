"""The tuner `LatencyBudget` in NNI's registry of algorithms (`$NNI_CONFIG_DIR/registered_algorithms.yml`)."""

from __future__ import annotations

from typing import Literal

from ..errors import RunError

TUNER = "LatencyBudget"
_NOT_WRITABLE = "NNI's registry cannot be written: {}; set NNI_CONFIG_DIR to a folder that can"
CLASS = "nni_proxyless.nni_bridge.tuner.LatencyBudget"


def registered_class() -> str | None:
    """The class that NNI's registry has under the tuner's name, if any."""
    from nni.tools.package_utils import get_algo_meta

    meta = get_algo_meta(TUNER)
    return None if meta is None else str(meta.class_name)


def register() -> Literal["registered", "already registered"]:
    """Put the tuner into NNI's registry; does nothing if it is there.

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
    """Take the tuner out of NNI's registry; does nothing if it is not there.

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
