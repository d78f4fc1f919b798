"""What a folder of results contains: the one list that everything reads and writes by.

A search writes these files, a trial that is tried once more takes them over, `run` collects them, and retrainings,
exports and reports read them.
"""

from __future__ import annotations

ARCHITECTURE = "architecture.json"
CHECKPOINT = "checkpoint.ckpt"
COST = "cost.json"
EXPORT = "export.json"
FINALISTS = "finalists.csv"
HISTORY = "history.csv"
LATENCY_TABLE = "latency_table.yml"
MODEL_CARD = "model_card.json"
PROBABILITIES = "probabilities.csv"
PRUNED = "pruned.csv"
RECIPE = "recipe.yml"
TENSORBOARD = "tensorboard"
WEIGHTS = "weights.pt"
WEIGHTS_LAST = "weights_last.pt"

# Written in the course of a search or a retraining, in the order in which they are copied: a copy that is cut off lacks
# the checkpoint, so nothing goes on from it.
IN_PROGRESS = (LATENCY_TABLE, WEIGHTS, HISTORY, PROBABILITIES, PRUNED, FINALISTS, COST, RECIPE, CHECKPOINT)
# Written when it has ended.
AT_THE_END = (ARCHITECTURE, WEIGHTS_LAST, MODEL_CARD)
# What `run` collects of a trial.
COLLECTED = (*AT_THE_END, *IN_PROGRESS)
# Without these nothing can go on.
NEEDED_TO_RESUME = (RECIPE, CHECKPOINT)
