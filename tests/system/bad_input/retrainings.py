"""Recipes and commands of retrainings with each key wrong."""

from __future__ import annotations

import torch

from .case import REMOVED, Case, keys, settings
from .folder import RETRAIN, saved, weights

RETRAIN_OUT = "retrain architecture.json --recipe retrain.yml --output out"

_SETTINGS = settings(
    RETRAIN_OUT,
    [
        ("epoch=3", "'epoch'", "did you mean 'epochs'?"),
        ("budget_ms=3", "'budget_ms'", "unknown key"),
        ("inherit=weights.pt --inherit", "inherit='weights.pt'", "given twice"),
        ("target=phone", "'target'", "unknown key"),
        ("epochs=0", "got 0", "'epochs' must be a whole number from 1"),
        ("epochs=sixty", "'sixty'", "'epochs' must be a whole number from 1"),
        ("epochs=1000000000000", "1000000000000", "'epochs' must be a whole number from 1 to"),
        ("epochs=1", "got 1 of 1", "'warmup_epochs' must be fewer"),
        ("warmup_epochs=-1", "got -1", "'warmup_epochs' must be a whole number from 0"),
        ("warmup_epochs=10", "got 10 of 4", "'warmup_epochs' must be fewer"),
        ("batch_size=0", "got 0", "'batch_size' must be a whole number from 1"),
        ("batch_size=1.5", "got 1.5", "'batch_size' must be a whole number from 1"),
        ("batch_size=10000", "10000", "choose a smaller one"),
        ("learning_rate=0", "got 0", "'learning_rate' must be a number greater than 0"),
        ("learning_rate=fast", "'fast'", "'learning_rate' must be a number greater than 0"),
        ("learning_rate=.nan", "nan", "must be a finite number"),
        ("momentum=1.0", "got 1.0", "'momentum' must be a number from 0 to below 1"),
        ("weight_decay=-1", "got -1", "'weight_decay' must be a number of at least 0"),
        ("decay_norm_bias=2", "got 2", "'decay_norm_bias' must be true or false"),
        ("label_smoothing=1.5", "got 1.5", "'label_smoothing' must be a number from 0 to below 1"),
        ("ema_decay=1", "got 1", "'ema_decay' must be a number from 0 to below 1"),
        ("ema_decay=-0.9", "got -0.9", "'ema_decay' must be a number from 0 to below 1"),
        ("mixup_alpha=-0.2", "got -0.2", "'mixup_alpha' must be a number of at least 0"),
        ("mixup_alpha=on", "True", "'mixup_alpha' must be a number of at least 0"),
        ("cutmix_alpha=.inf", "inf", "must be a finite number"),
        ("gradient_clip_val=0", "got 0", "'gradient_clip_val' must be a number greater than 0"),
        ("seed=-1", "got -1", "'seed' must be a whole number from 0"),
        ("seed=18446744073709551616", "18446744073709551616", "a number of at most 63 bits"),
        ("seed=4294967296", "got 4294967296", "'seed' must be a whole number from 0 to 4294967295"),
        ("split_seed=4294967296", "4294967296", "'split_seed' must be a whole number from 0 to"),
        ("split_seed=none", "'none'", "'split_seed' must be a whole number from 0"),
        ("threads=0", "got 0", "'threads' must be a whole number from 1"),
        ("threads=1099511627776", "1099511627776", "'threads' must be a whole number from 1 to"),
        ("num_workers=-1", "got -1", "'num_workers' must be a whole number from 0"),
        ("accelerator=tpu", "'tpu'", "allowed: auto, cpu, gpu"),
        ("accelerator=gpu", "accelerator gpu", "use accelerator: auto or cpu"),
        ("precision=32", "32", "allowed: 16-mixed, 32-true, bf16-mixed"),
        ("precision=16-mixed", "16-mixed", "use 32-true or bf16-mixed"),
        ("channels_last=last", "'last'", "'channels_last' must be true or false"),
        ("data=imagenet", "'imagenet'", "allowed: arrays, cifar10"),
        ("data=cifar10", "cifar10", "needs data_dir"),
        ("data=imagefolder data_dir=nowhere", "nowhere", "does not exist"),
        ("data=arrays", "arrays", "needs data_dir"),
        ("data_dir=[a,b]", "['a', 'b']", "'data_dir' must be a string"),
        ("download=perhaps", "'perhaps'", "'download' must be true or false"),
        ("arch_fraction=0.9", "0.9 + 0.2", "must leave images"),
        ("held_out_fraction=1", "got 1", "'held_out_fraction' must be a number between 0 and 1"),
        ("architecture=other.json", "other.json", "twice"),
        ("inherit=nowhere.pt", "nowhere.pt", "give a weights.pt"),
        ("inherit=architecture.json", "architecture.json", "weights"),
        ("inherit=empty", "empty", "weights"),
        ("inherit=5", "got 5", "'inherit' must be a string"),
    ],
)

_ARCHITECTURES = settings(
    "retrain",
    [
        ("nowhere.json --output out", "nowhere.json", "No such file"),
        ("proxyless_phone --output out", "'proxyless_phone'", "proxyless_mobile"),
        ("proxyless_mobil --output out", "'proxyless_mobil'", "did you mean 'proxyless_mobile'?"),
        ("mobilenet_v3 --output out", "'mobilenet_v3'", "mobilenet_v2_0.75"),
        ("mobilenet_v2_0 --output out", "'mobilenet_v2_0'", "positive number"),
        ("mobilenet_v2_-1 --output out", "'mobilenet_v2_-1'", "positive number"),
        ("mobilenet_v2_wide --output out", "'wide'", "mobilenet_v2_0.75"),
        ("mobilenet_v2_nan --output out", "nan", "positive number"),
        ("mobilenet_v2_inf --output out", "inf", "positive number"),
        ("mobilenet_v2_1e30 --output out", "'1e30'", "a positive number, from 0.01 to 100"),
        ("mobilenet_v2 space=nowhere.yml --output out", "nowhere.yml", "No such file"),
        ("mobilenet_v2 space=table.yml --output out", "table.yml", "nni-proxyless/space@1"),
        ("empty --output out", "empty", "architecture.json"),
        ("table.yml --output out", "table.yml", "nni-proxyless/architecture@1"),
        ("recipe.yml --output out", "recipe.yml", "nni-proxyless/architecture@1"),
        ("found/weights.pt --output out", "weights.pt", "architecture"),
        ("'' --output out", "''", "network"),
        ("~nouser/a.json --output out", "~nouser", "home"),
        ("architecture.json --recipe nowhere.yml --output out", "nowhere.yml", "No such file"),
        ("architecture.json --recipe recipe.yml --output out", "recipe.yml", "unknown key"),
        ("architecture.json --recipe empty --output out", "empty", "directory"),
        ("architecture.json --recipe architecture.json --output out", "architecture.json", "unknown key"),
        ("architecture.json --inherit --output out", "weights.pt", "give a weights.pt"),
        ("architecture.json --inherit nowhere.pt --output out", "nowhere.pt", "give a weights.pt"),
        ("architecture.json --inherit images.npz --output out", "images.npz", "weights.pt"),
        ("architecture.json --inherit found/checkpoint.ckpt --output out", "checkpoint.ckpt", "weights.pt"),
        ("other.json --inherit found/weights.pt --output out", "another architecture", "head"),
        ("proxyless_mobile --inherit found/weights.pt --output out data=cifar10 data_dir=empty", "cifar10", "download"),
    ],
)

_IN_THE_FILE = [
    *keys(
        RETRAIN_OUT.replace("architecture.json ", "found "),
        "retrain.yml",
        RETRAIN,
        [
            ("epochs", "4", "'4'", "'epochs' must be a whole number from 1"),
            ("epochs", [4], "[4]", "'epochs' must be a whole number from 1"),
            ("learning_rate", {"initial": 0.1}, "initial", "'learning_rate' must be a number greater than 0"),
            ("learning_rate", 10**399, "1000", "learning_rate must be a number of at most 63 bits"),
            ("epochs", 10**399, "1000", "epochs must be a number of at most 63 bits"),
            ("data", None, "nothing", "'data' must be a string"),
            ("strategy", "darts", "'strategy'", "unknown key"),
            ("space", ["space.yml"], "['space.yml']", "'space' must be a string"),
            ("inherit", "~nouser/w.pt", "~nouser", "home"),
            ("data_dir", "~nouser", "~nouser", "home"),
        ],
    ),
]


def _changed(name: str, make: object) -> bytes:
    state = dict(weights())
    if make is REMOVED:
        del state[name]
    else:
        state[name] = make(state[name])  # type: ignore[operator]
    return saved(state)


_FIRST = next(iter(weights()))
_WEIGHTS = [
    Case("retrain architecture.json --inherit bad.pt --output out", received, says, {"bad.pt": content})
    for content, received, says in (
        (b"", "bad.pt", "weights.pt"),
        (b"\x80\x02", "bad.pt", "weights.pt"),
        (saved(weights())[:-200], "bad.pt", "weights.pt"),
        (b"PK\x03\x04" + b"\0" * 100, "bad.pt", "weights.pt"),
        (saved([1, 2, 3]), "bad.pt", "state dict"),
        (saved({"a": 5}), "bad.pt", "state dict"),
        (saved({}), _FIRST, "lack"),
        (_changed(_FIRST, REMOVED), _FIRST, "lack"),
        (_changed(_FIRST, lambda tensor: tensor[:1]), _FIRST, "needs"),
        (_changed(_FIRST, lambda tensor: tensor.to(torch.complex64)), _FIRST, "complex"),
        (_changed(_FIRST, lambda tensor: tensor * float("nan")), _FIRST, "finite"),
        (_changed(_FIRST, lambda tensor: tensor.to_sparse()), _FIRST, "sparse"),
        (saved({**weights(), "extra": weights()[_FIRST]}), "'extra'", "also contain"),
        (saved({str(n): value for n, value in enumerate(weights().values())}), "another architecture", "lack"),
    )
]
# A refused retraining over a finished one.
_OVER_A_FINISHED_ONE = settings(
    "retrain architecture.json --output found --overwrite",
    [
        ("threads=1099511627776", "1099511627776", "'threads' must be"),
        ("accelerator=gpu", "accelerator gpu", "use accelerator: auto or cpu"),
        ("precision=16-mixed", "16-mixed", "use 32-true"),
        ("batch_size=5000", "5000", "choose a smaller one"),
        ("data=arrays data_dir=images.npz held_out_fraction=0.001", "0.001 of 200 images", "choose a larger one"),
    ],
)

_ONTO_ITS_SEARCH = [
    Case(line, "found holds the architecture to train", "choose another folder")
    for line in ("retrain found --output found", "retrain found/architecture.json --output found/../found --overwrite")
]

CASES = [*_SETTINGS, *_ARCHITECTURES, *_IN_THE_FILE, *_WEIGHTS, *_OVER_A_FINISHED_ONE, *_ONTO_ITS_SEARCH]
