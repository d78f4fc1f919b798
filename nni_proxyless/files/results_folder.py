"""Names of the files in a folder of results.

Searches and retrainings write these files, and a trial that NNI repeats takes them over. `run` collects them, and
exports and reports read them.
"""

from __future__ import annotations

ACCURACIES = "accuracies.json"  # of a shared search in the cache only
ARCHITECTURE = "architecture.json"
CHECKPOINT = "checkpoint.ckpt"
COST = "cost.json"
EXPORT = "export.json"
FINALISTS = "finalists.csv"
HISTORY = "history.csv"
LATENCY_TABLE = "latency_table.yml"
OTHER_TABLES = "other_latency_tables.yml"
MODEL_CARD = "model_card.json"
PREPROCESSING = "preprocessing.json"
PROBABILITIES = "probabilities.csv"
PRUNED = "pruned.csv"
RECIPE = "recipe.yml"
TENSORBOARD = "tensorboard"
WEIGHTS = "weights.pt"
WEIGHTS_LAST = "weights_last.pt"

# Between several warnings of an epoch, in the column `warnings` of the history.
WARNING_SEPARATOR = " | "

# Files that are written during a search or a retraining, in the order in which they are copied. An interrupted copy
# lacks the checkpoint, so it cannot be resumed.
IN_PROGRESS = (
    LATENCY_TABLE, OTHER_TABLES, WEIGHTS, HISTORY, PROBABILITIES, PRUNED, FINALISTS, COST, PREPROCESSING, RECIPE,
    CHECKPOINT,
)  # fmt: skip
# Files that are written at the end.
AT_THE_END = (ARCHITECTURE, WEIGHTS_LAST, MODEL_CARD)
# Files of a trial that `run` collects.
COLLECTED = (*AT_THE_END, *IN_PROGRESS)
# Files without which a search or a retraining cannot be resumed.
NEEDED_TO_RESUME = (RECIPE, CHECKPOINT)
NEEDED_BY_SEARCH = (CHECKPOINT, LATENCY_TABLE)
NEEDED_BY_RETRAINING = (CHECKPOINT, WEIGHTS)
