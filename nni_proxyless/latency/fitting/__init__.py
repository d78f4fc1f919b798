"""Latency tables from the latencies of whole networks."""
