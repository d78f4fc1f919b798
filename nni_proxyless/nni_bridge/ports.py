"""Checks of TCP ports on this machine, and of its name."""

from __future__ import annotations

import socket

NO_LOCALHOST = "the name localhost, by which NNI calls its manager, cannot be resolved"
LOCALHOST_FIX = "add the line '127.0.0.1 localhost' to /etc/hosts"


def localhost_is_known() -> bool:
    """Whether this machine resolves the name `localhost`. A minimal system without `/etc/hosts` may not."""
    try:
        return bool(socket.getaddrinfo("localhost", None))
    except OSError:
        return False


def port_is_free(port: int) -> bool:
    """Whether a server can listen on a TCP port of this machine."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        # Ports of connections that were closed a moment ago (TIME_WAIT) count as free.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("", port))
        except OSError:
            return False
    return True
