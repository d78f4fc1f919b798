"""Registers the tuner `LatencyBudget` in NNI's registry of algorithms.

The registry is the file `$NNI_CONFIG_DIR/registered_algorithms.yml`.
"""

from __future__ import annotations

from typing import Literal

import yaml

from ..errors import InputError, RunError

TUNER = "LatencyBudget"
_NOT_WRITABLE = "NNI's registry cannot be written: {}; set NNI_CONFIG_DIR to a writable folder"
CLASS = "nni_proxyless.nni_bridge.tuner.LatencyBudget"


def registered_class() -> str | None:
    """The class registered under the tuner's name in NNI's registry; `None` if there is none.

    Raises:
        InputError: The registry cannot be read, or is damaged.
    """
    from nni.tools.package_utils import get_algo_meta

    try:
        meta = get_algo_meta(TUNER)
    except OSError as reason:
        raise InputError(
            f"NNI's registry cannot be read: {reason}; set NNI_CONFIG_DIR to a folder that can be written"
        ) from reason
    except (yaml.YAMLError, AttributeError, KeyError, TypeError, ValueError) as reason:
        raise InputError(
            f"NNI's registry registered_algorithms.yml is damaged ({type(reason).__name__}); repair it, or delete it, "
            "and it is created again"
        ) from reason
    return None if meta is None else str(meta.class_name)


def register() -> Literal["registered", "already registered"]:
    """Add the tuner to NNI's registry, replacing an entry of the same name that names another class.

    Raises:
        InputError: The registry cannot be read.
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
        InputError: The registry cannot be read.
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
