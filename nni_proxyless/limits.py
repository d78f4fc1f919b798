"""Largest allowed values of numbers that a user gives. Larger ones are typing errors, and could exhaust the machine."""

from __future__ import annotations

MOST_SEED = 2**32 - 1  # NumPy's random number generators take no larger one
MOST_THREADS = 1024
MOST_PROCESSES = 1024
MOST_FINALISTS = 10_000
MOST_SUGGESTED = 1_000  # networks at once; time and memory are quadratic in the pool
MOST_SAMPLES = 10_000
MOST_EPOCHS = 1_000_000
MOST_PIXELS = 4096  # height and width of an image
MOST_COUNT = 1_000_000_000  # such as images in a batch
LEAST_WIDTH_MULT = 0.01
MOST_WIDTH_MULT = 100.0
MOST_NUMBER = 1e30  # PyTorch computes with 32 bits, up to 3.4e38
LEAST_TEMPERATURE = 1e-3  # a softmax of this temperature is a decision
MOST_BATCH = 100_000
