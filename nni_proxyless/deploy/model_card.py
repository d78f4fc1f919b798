"""The model card: a network's architecture, training data, accuracy, training cost and recipe."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

from ..data.splits import DataSplits
from ..errors import InputError
from ..files import results_folder
from ..files.reading import read_mapping
from ..latency import this_device
from ..network.architecture import Architecture
from ..process_memory import peak_memory_mib
from .model_input import ModelInput
from .retrain_recipe import RetrainRecipe

_log = logging.getLogger(__name__)
CARD_SCHEMA = "nni-proxyless/model-card@1"


def model_card(
    recipe: RetrainRecipe,
    architecture: Architecture,
    splits: DataSplits,
    *,
    rows: Sequence[Mapping[str, Any]],
    best: Mapping[str, Any],
    test: Mapping[str, Any] | None,
    trial_parameters: Mapping[str, Any] | None = None,
    warnings: Sequence[str] = (),
) -> dict[str, Any]:
    """Make the content of `model_card.json` for a network that this process has trained.

    Args:
        recipe: Recipe of the retraining.
        architecture: Architecture of the network.
        splits: Data that the network was trained and validated on.
        rows: Training history, with a row for each epoch.
        best: Row of the epoch whose weights are kept.
        test: Accuracy of these weights on the data set's own test part; `None` if it has none.
        trial_parameters: Parameters that NNI sent, if the retraining was a trial.
        warnings: Warnings about the training.
    """
    last = rows[-1]
    settings = recipe.to_dict(absolute=True)
    return {
        "schema": CARD_SCHEMA,
        "architecture": {"file": recipe.architecture, **_described(architecture)},
        "weights": {
            "best": results_folder.WEIGHTS,
            "last": results_folder.WEIGHTS_LAST,
            "inherited_from": settings["inherit"],
        },
        "data": {
            "name": recipe.data,
            "training_images": len(splits.training),
            "validation_images": len(splits.held_out),
            "classes": splits.num_classes,
            "class_names": list(splits.class_names),
            "split_seed": recipe.split_seed,
            "validation_was_used_for": "choosing the best epoch; neither a search nor this training learnt from it",
        },
        "preprocessing": splits.preprocessing.to_dict(),
        "results": {
            "best_epoch": best["epoch"],
            "validation": _of_row(best),
            "validation_last": _of_row(last),
            "test": test,
            "train_loss": last["train_loss"] if math.isfinite(last["train_loss"]) else None,
        },
        "cost": {
            "epochs": last["epoch"],
            "seconds": last["seconds"],
            "peak_memory_mib": round(peak_memory_mib(), 1),
            "machine": asdict(this_device()),
        },
        "recipe": settings,
        "trial_parameters": dict(trial_parameters or {}),
        "warnings": list(warnings),
        "versions": {name: version(name) for name in ("nni-proxyless", "torch", "torchvision", "pytorch-lightning")},
    }


def exported_card(architecture: Architecture, weights: Path, about: ModelInput | None) -> dict[str, Any]:
    """Make the content of the `model_card.json` beside exported files.

    Args:
        architecture: Architecture of the network.
        weights: Path of its weights. If the model card of their retraining is next to them, it is used.
        about: Preprocessing and classes; `None` if they are not known.

    Returns:
        The card of the retraining, or one of the architecture alone, with the preprocessing and the names of classes.
    """
    beside = weights.parent / results_folder.MODEL_CARD
    card: Mapping[str, Any] = {}
    if beside.is_file():
        try:
            card = read_mapping(beside, "model card", InputError)
            of = card.get("architecture")
            if (
                not isinstance(of, Mapping)
                or not isinstance(card.get("data", {}), Mapping)
                or of.get("choices") != dict(architecture.choices)
            ):
                raise InputError(f"{beside} is the model card of another network")
        except InputError as reason:
            _log.warning("%s; the exported model card has only the architecture", reason)
            card = {}
    made = {
        "schema": CARD_SCHEMA,
        "architecture": {"file": results_folder.ARCHITECTURE, **_described(architecture)},
        **card,
    }
    if about is not None:
        made["preprocessing"] = about.preprocessing.to_dict()
        made["data"] = {**made.get("data", {}), "class_names": list(about.classes)}
    return made


def _described(architecture: Architecture) -> dict[str, Any]:
    return {
        "space": architecture.space_name,
        "space_hash": architecture.space_hash,
        "choices": dict(architecture.choices),
        "strategy": architecture.strategy,
        "target": architecture.target,
        "budget_ms": architecture.budget_ms,
        "budgets": {name: dict(values) for name, values in architecture.budgets.items()},
        "predicted_latency_ms": architecture.predicted_latency_ms,
        "measured_latency_ms": architecture.measured_latency_ms,
        "parameters": architecture.parameters,
        "multiply_adds": architecture.multiply_adds,
    }


def of_accuracies(top1: float, top5: float | None, balanced: float | None) -> dict[str, float]:
    """Return the accuracies that a card has: top-5 with more than ten classes, balanced if classes differ in size."""
    found = {"top1": top1, "top5": top5, "balanced": balanced}
    return {name: value for name, value in found.items() if value is not None}


def _of_row(row: Mapping[str, Any]) -> dict[str, float]:
    return of_accuracies(row["default"], row.get("top5"), row.get("balanced_accuracy"))
