"""Backends that measure the latency of a network or count its multiply-adds or parameters."""
