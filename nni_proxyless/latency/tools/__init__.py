"""Parsers of the output of device tools: benchmark programs that run a network on a device and print its latency."""

from typing import TYPE_CHECKING

from ...lazy import lazy_names

if TYPE_CHECKING:
    from .plain import read_plain
    from .reading import Reading
    from .registry import TOOLS, find_tool

__all__ = ["TOOLS", "Reading", "find_tool", "read_plain"]
__getattr__ = lazy_names(
    __name__,
    {
        "Reading": "latency.tools.reading",
        "TOOLS": "latency.tools.registry",
        "find_tool": "latency.tools.registry",
        "read_plain": "latency.tools.plain",
    },
)
