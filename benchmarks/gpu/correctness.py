"""CUDA gives the results that the CPU gives: gates, freezing, autocast, determinism, resumption, whole searches.

    python -m benchmarks.gpu.correctness [--device cpu --toy --output FOLDER]

Each check has an error and the largest allowed one. A check without an allowed error only reports its error.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch

from benchmarks.gpu import gate_checks
from benchmarks.gpu.gate_checks import SupernetChecks
from benchmarks.gpu.made_up import TINY_SPACE
from benchmarks.gpu.part import Item, Row, Setting, run
from benchmarks.gpu.training_checks import SearchChecks
from nni_proxyless.network.space_spec import SpaceSpec

COLUMNS = ("check", "error", "allowed", "ok")
DTYPES = {"float32": (torch.float32, 1e-4), "float64": (torch.float64, 1e-9)}
FORMATS = {"contiguous": torch.contiguous_format, "channels_last": torch.channels_last}
SPACE = "mobilenetv2_digits"
Check = tuple[str, Callable[[], float], float | None]


def items(setting: Setting) -> list[Item]:
    # TensorFloat-32 has ten bits, so errors would not tell a wrong gradient from a rounded one.
    torch.backends.cudnn.allow_tf32 = False
    torch.backends.cuda.matmul.allow_tf32 = False
    checks = [*_gates(setting), *_supernets(setting), *_searches(setting)]
    return [(name, partial(_row, name, check, allowed)) for name, check, allowed in checks]


def _row(name: str, check: Callable[[], float], allowed: float | None) -> list[Row]:
    error = check()
    if allowed is not None and not error <= allowed:
        raise AssertionError(f"{name}: the error is {error:.3g}, and at most {allowed:.3g} is allowed")
    return [{"check": name, "error": f"{error:.3g}", "allowed": "" if allowed is None else allowed, "ok": True}]


def _gates(setting: Setting) -> list[Check]:
    device = setting.device
    found: list[Check] = []
    for label, (dtype, allowed) in DTYPES.items():
        found += [
            (f"full gradient, all gate outcomes, {label}", partial(gate_checks.full_gradient, device, dtype), allowed),
            (
                f"two_path gradient, all outcomes of two pairs, {label}",
                partial(gate_checks.two_path_gradient, device, dtype), allowed,
            ),
        ]  # fmt: skip
    return [
        *found,
        ("other probabilities after a two_path step", partial(gate_checks.rescaling, device), 1e-6),
        ("paths drawn, differing from the CPU", partial(gate_checks.drawn_paths, device), 0.0),
    ]


def _supernets(setting: Setting) -> list[Check]:
    spec = SpaceSpec.from_dict(TINY_SPACE) if setting.toy else SpaceSpec.from_yaml(SPACE)
    checks = SupernetChecks(spec, 8 if setting.toy else 64, setting.device)
    found: list[Check] = [
        (
            f"{step} step, {'entangled' if entangled else 'own'} weights, {label}",
            partial(checks.against_cpu, step, entangled, dtype), 10 * allowed,
        )
        for step in ("weight", "two_path", "full")
        for entangled in (False, True)
        for label, (dtype, allowed) in DTYPES.items()
    ]  # fmt: skip
    found.append(
        (
            "full step, channels_last, float32",
            partial(checks.against_cpu, "full", False, torch.float32, memory_format=torch.channels_last), 1e-3,
        )
    )  # fmt: skip
    kinds = {"bfloat16": torch.bfloat16} | ({"float16": torch.float16} if setting.device == "cuda" else {})
    found += [
        (f"gradient of α with autocast to {label}", partial(checks.autocast, kind), 0.1)
        for label, kind in kinds.items()
    ]
    return [
        *found,
        ("weights and buffers touched by a full step", checks.frozen, 0.0),
        ("inactive paths and α touched by a weight step", checks.inactive, 0.0),
        ("two SGD steps of entangled weights, float64", checks.entangled_step, 1e-9),
    ]


def _searches(setting: Setting) -> list[Check]:
    spec = SpaceSpec.from_dict(TINY_SPACE) if setting.toy else SpaceSpec.from_yaml(SPACE)
    checks = SearchChecks(spec, setting.accelerator, setting.scratch, 2 if setting.toy else 4)
    mixed = "16-mixed" if setting.device == "cuda" else "bf16-mixed"
    found: list[Check] = [
        ("search, 32-true", partial(checks.precision, "32-true"), 0.0),
        (f"search with gradient clipping, {mixed}", partial(checks.precision, mixed, gradient_clip_val=1.0), 0.0),
        (f"retraining, {mixed}", partial(checks.retraining, mixed), 0.0),
        ("search twice, deterministic algorithms", partial(checks.repeated, True), 0.0),
        ("search resumed, deterministic algorithms", checks.resumed, 0.0),
    ]
    if setting.toy:
        return found
    return [
        *found,
        ("search, bf16-mixed", partial(checks.precision, "bf16-mixed"), 0.0),
        ("search, two_path", partial(checks.precision, "32-true", arch_gradient="two_path"), 0.0),
        ("search, reinforce", partial(checks.precision, "32-true", arch_gradient="reinforce"), 0.0),
        ("search, own weights", partial(checks.precision, "32-true", entangle_weights=False), 0.0),
        ("search twice, default algorithms", partial(checks.repeated, False), None),
    ]


if __name__ == "__main__":
    raise SystemExit(run("correctness", COLUMNS, items, __doc__))
