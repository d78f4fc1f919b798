"""Checks of TCP ports on this machine."""

from __future__ import annotations

import socket


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
