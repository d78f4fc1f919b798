"""Latency tables fitted to the latencies of whole networks."""
