"""Folders of results, environment variables and NNI's registry that are wrong or damaged."""

from __future__ import annotations

from .case import Case, keys
from .folder import HISTORY, RECIPE, as_json, checkpoint, saved

_FINALISTS = "decode found --table table.yml --budget-ms 1.3 --finalists 4"
_RESULTS_RECIPE = {**RECIPE, "space": "../space.yml", "targets": {"phone": {"table": "../table.yml"}}}

# Comparing finalists needs the recipe, the data and the weights of the search.
_OF_A_SEARCH = [
    *keys(
        _FINALISTS,
        "found/recipe.yml",
        _RESULTS_RECIPE,
        [
            ("epochs", 0, "got 0", "'epochs' must be a whole number from 1"),
            ("epoch", 6, "'epoch'", "did you mean 'epochs'?"),
            ("space", "../nowhere.yml", "nowhere.yml", "No such file"),
            ("space", "../other.yml", "recipe.yml", "not of the space"),
            ("data", "mnist", "'mnist'", "allowed: arrays"),
            ("data", "arrays", "arrays", "needs data_dir"),
            ("data_dir", 5, "got 5", "'data_dir' must be a string"),
            ("threads", 10**9, "1000000000", "'threads' must be a whole number from 1 to"),
        ],
    ),
    Case(_FINALISTS, "found/recipe.yml", "holds nothing", {"found/recipe.yml": ""}),
    Case(_FINALISTS, "found/recipe.yml", "holds a list", {"found/recipe.yml": [1]}),
    Case(_FINALISTS, "checkpoint", "weights", {"found/checkpoint.ckpt": saved(checkpoint())}),
    Case(_FINALISTS, "checkpoint.ckpt", "give the checkpoint.ckpt of a search", {"found/checkpoint.ckpt": b"PK"}),
    Case("decode found/checkpoint.ckpt --table table.yml --budget-ms 1.3 --finalists 4", "recipe.yml", "the folder of"),
    Case(
        "decode empty --table table.yml --budget-ms 1.3 --finalists 4", "checkpoint", "the folder of a search's results"
    ),
    Case("decode found --table table.yml --budget-ms 0.1 --finalists 4", "0.1 ms", "the fastest takes"),
    Case("decode found --table table.yml --budget-ms 1.3 --finalists 1", "got 1", "a whole number from 2"),
    Case("decode found --table other_table.yml --budget-ms 1.3 --finalists 4", "lacks", "Measure the table again"),
]

# A folder in which nothing can be shown.
_REPORTS = [
    Case(
        "report bad", received, "give a folder of results", {f"bad/{name}": content for name, content in files.items()}
    )
    for files, received in (
        ({"history.csv": HISTORY}, "recipe.yml"),
        ({"history.csv": HISTORY, "recipe.yml": ""}, "recipe.yml"),
        ({"history.csv": "", "recipe.yml": RECIPE}, "bad"),
        ({"history.csv": b"\xff\xfe\0", "recipe.yml": RECIPE}, "history.csv"),
        ({"history.csv": "epoch,default\n1\n", "recipe.yml": RECIPE}, "history.csv"),
        ({"history.csv": HISTORY, "recipe.yml": {**RECIPE, "target": ["a"]}}, "target"),
        ({"model_card.json": "{"}, "model_card.json"),
        ({"model_card.json": as_json({"results": {}})}, "bad"),
        ({"export.json": "[]"}, "export.json"),
        ({"architecture.json": "{}"}, "bad"),
    )
]

_REGISTRY = "registry/registered_algorithms.yml"
_VARIABLES = [
    *[
        Case("register", received, says, files, {"NNI_CONFIG_DIR": "registry"})
        for files, received, says in (
            ({_REGISTRY: "a: ["}, "registered_algorithms.yml", "repair it, or delete it"),
            ({_REGISTRY: "word\n"}, "registered_algorithms.yml", "repair it, or delete it"),
            ({_REGISTRY: "tuners: 5\n"}, "registered_algorithms.yml", "repair it, or delete it"),
            ({_REGISTRY: "tuners: [5]\n"}, "registered_algorithms.yml", "repair it, or delete it"),
            ({_REGISTRY: b"\xff\xfe\0"}, "registered_algorithms.yml", "repair it, or delete it"),
        )
    ],
    Case(
        "register --unregister",
        "registered_algorithms.yml",
        "repair it",
        {_REGISTRY: "["},
        {"NNI_CONFIG_DIR": "registry"},
    ),
    Case("register", "notes.txt", "NNI_CONFIG_DIR", {}, {"NNI_CONFIG_DIR": "notes.txt"}),
    Case("register", "notes.txt", "NNI_CONFIG_DIR", {}, {"NNI_CONFIG_DIR": "notes.txt/nni"}),
    Case("latency list", "~nouser", "home", {}, {"NNI_PROXYLESS_CACHE": "~nouser/cache"}),
    Case("latency list --remeasure", "~nouser", "home", {}, {"NNI_PROXYLESS_CACHE": "~nouser/cache"}),
    Case("latency list", "notes.txt", "is a file, not a folder", {}, {"NNI_PROXYLESS_CACHE": "notes.txt"}),
    Case(
        "search recipe.yml targets='{phone: {backend: torch}}'",
        "notes.txt",
        "cannot",
        {},
        {"NNI_PROXYLESS_CACHE": "notes.txt"},
    ),
]

CASES = [*_OF_A_SEARCH, *_REPORTS, *_VARIABLES]
