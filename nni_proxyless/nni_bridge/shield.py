"""Makes NNI's manager listen on this machine only. NNI 3.0 has no password and no setting for the address.

The manager runs in Node.js, which loads `loopback.cjs` before it if the variable NODE_OPTIONS says so. That file sets
the address of all servers, refuses requests of foreign pages, and lets TensorBoard listen on the same address. It also
loads `patience.cjs`, which gives a tuner more than 10 seconds to connect.
"""

from __future__ import annotations

import contextlib
import ipaddress
import logging
import os
import socket
from collections.abc import Iterator, Mapping
from pathlib import Path

import psutil

from ..errors import InputError

HOST = "NNI_PROXYLESS_HOST"
LOOPBACK = "127.0.0.1"
SCRIPT = Path(__file__).with_name("loopback.cjs")
_OPTIONS, _BEFORE, _WITH_PARENT = "NODE_OPTIONS", "NNI_PROXYLESS_NODE_OPTIONS", "NNI_PROXYLESS_WITH_PARENT"


def check_host(host: str | None) -> str:
    """Check the address on which the manager is to listen.

    Args:
        host: Address; `None` for that in the variable `NNI_PROXYLESS_HOST`, or else 127.0.0.1.

    Returns:
        The address.

    Raises:
        InputError: The text is not an IP address of this machine.
    """
    received = os.environ.get(HOST) or LOOPBACK if host is None else host
    source = HOST if host is None else "--host"
    try:
        address = ipaddress.ip_address(received)
        family = socket.AF_INET if address.version == 4 else socket.AF_INET6
        with socket.socket(family) as probe:
            probe.bind((str(address), 0))
    except (ValueError, OSError):
        raise InputError(
            f"{source} must be an IP address of this machine, such as {LOOPBACK}, or 0.0.0.0 for all, got "
            f"{received[:100]!r}"
        ) from None
    return str(address)


def is_loopback(host: str) -> bool:
    """Whether an address can be reached from this machine only."""
    return ipaddress.ip_address(host).is_loopback


def shielded(environment: Mapping[str, str], host: str = LOOPBACK, *, with_parent: bool = False) -> dict[str, str]:
    """Return an environment in which NNI's manager listens on one address.

    Args:
        environment: Environment to start from.
        host: The address. The manager also listens on 127.0.0.1.
        with_parent: Whether the manager, a child of this process, stops when this process is gone.
    """
    before = environment.get(_OPTIONS, "")
    path = str(SCRIPT).replace("\\", "\\\\").replace('"', '\\"')
    options = f'{before} --require="{path}"'.strip()
    found = {**environment, HOST: host, _OPTIONS: options, _BEFORE: before}
    found.pop(_WITH_PARENT, None)
    if with_parent:
        found[_WITH_PARENT] = str(os.getpid())
    return found


@contextlib.contextmanager
def shield(host: str, *, with_parent: bool) -> Iterator[None]:
    """Context manager in which this process's environment is that of `shielded`."""
    keys = (HOST, _OPTIONS, _BEFORE, _WITH_PARENT)
    before = {key: os.environ.get(key) for key in keys}
    found = shielded(os.environ, host, with_parent=with_parent)
    os.environ.update({key: found[key] for key in keys if key in found})
    # NNI logs the URLs of all interfaces, whatever the manager listens on.
    log = logging.getLogger("nni.experiment")
    log.addFilter(_is_no_list_of_urls)
    try:
        yield
    finally:
        log.removeFilter(_is_no_list_of_urls)
        for key, value in before.items():
            if value is None:
                os.environ.pop(key, None)
            else:
                os.environ[key] = value


def _is_no_list_of_urls(record: logging.LogRecord) -> bool:
    return "Web portal URLs" not in record.getMessage()


def addresses(process: int) -> set[str]:
    """Return the addresses on which a process of this user listens; empty where the system does not say."""
    try:
        found = psutil.Process(process)
        listed = found.net_connections("inet") if hasattr(found, "net_connections") else found.connections("inet")
    except psutil.Error:
        return set()
    return {str(one.laddr.ip) for one in listed if one.status == psutil.CONN_LISTEN}
