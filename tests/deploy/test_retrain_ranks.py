"""A retraining in several processes trains what one process would train with all their images together."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, DistributedSampler

from nni_proxyless import Architecture
from nni_proxyless.deploy.retrain import prepare_retraining
from nni_proxyless.deploy.retrain_recipe import RetrainRecipe
from nni_proxyless.errors import InputError
from nni_proxyless.network.space_spec import SpaceSpec
from nni_proxyless.network.weights import read_weights, save_weights
from nni_proxyless.search.recipe import Recipe
from nni_proxyless.training.image_classification import warmup_cosine
from nni_proxyless.training.ranks import is_main_process, own_processes, started_by_torchrun
from tests.helpers import REPOSITORY, read_csv
from tests.warm import WarmProcess

CHOICES = {"stage1_layer1": "k5_e2", "stage1_layer2": "k3_e1", "stage2_layer1": "k3_e1"}
RATE, DECAY, MOMENTUM, BATCH, EPOCHS = 0.05, 0.5, 0.9, 64, 2

# One process on each of two machines. The folder after the first epoch is copied, and continued like an interrupted
# one. The process group stays, so that one start of the processes serves for all that is tested.
NODE = f"""
import json, os, shutil
import torch
from pathlib import Path
from nni_proxyless.deploy.retrain import prepare_retraining, run_retraining
from nni_proxyless.deploy.retrain_recipe import RetrainRecipe
from nni_proxyless.search.prepared import prepare
from nni_proxyless.search.recipe import Recipe
from nni_proxyless.search.run import run_search
torch.set_num_threads(1)
common = dict(
    num_nodes=2, accelerator="cpu", threads=1, data="digits", batch_size={BATCH}, learning_rate={RATE},
    epochs={EPOCHS}, warmup_epochs=1, ema_decay={DECAY}, weight_decay=0.0, label_smoothing=0.0, inherit="found",
    freeze_batch_norm=True,
)
def retrain(out, report=None, **settings):
    recipe = RetrainRecipe.for_architecture("found", {{**common, **settings}}, None)
    return run_retraining(prepare_retraining(recipe), Path(out), report)
def copy(_record, number):
    if number == 0:
        shutil.copytree("whole", "parts", ignore=shutil.ignore_patterns(".lock"))
cards = [retrain("whole", copy), retrain("parts"), retrain("mixed", precision="bf16-mixed", epochs=1, warmup_epochs=0)]
search = dict(num_nodes=2, accelerator="cpu", epochs=2, warmup_epochs=1, target="device")
architecture = run_search(prepare(Recipe.load("recipe.yml", search)), Path("search"))
told = [[bool(card) for card in cards], dict(architecture.choices)]
Path("node-" + os.environ["NODE"]).write_text(json.dumps(told))
"""


@pytest.fixture
def found(tmp_path: Path, tiny_spec: SpaceSpec) -> Path:
    architecture = Architecture.of_space(replace(tiny_spec, classes=10), CHOICES)
    architecture.save(tmp_path / "found" / "architecture.json")
    save_weights(architecture.build(), tmp_path / "found" / "weights.pt")
    return tmp_path / "found"


def environment(**more: str) -> dict[str, str]:
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("LOCAL_RANK", "PYTEST"))}
    return {**kept, "PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1", **more}


def free_port() -> str:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return str(free.getsockname()[1])


def trained_by_hand(recipe: RetrainRecipe) -> tuple[dict[str, torch.Tensor], list[float]]:
    """Train as two ranks do, in one process: the mean of the gradients of two batches is that of all their images."""
    images = prepare_retraining(recipe).splits.training
    network = Architecture.load(recipe.folder / "found" / "architecture.json").build()
    network.load_state_dict(read_weights(recipe.folder / "found" / "weights.pt"))
    network.train()
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eval().requires_grad_(False)
    optimizer = torch.optim.SGD(
        [weight for weight in network.parameters() if weight.requires_grad], RATE, MOMENTUM, nesterov=True
    )
    samplers = [DistributedSampler(images, 2, rank, shuffle=True, seed=recipe.seed) for rank in range(2)]
    loaders = [DataLoader(images, BATCH, sampler=sampler, drop_last=True) for sampler in samplers]
    steps = len(loaders[0])
    average = {key: value.clone() for key, value in network.state_dict().items()}
    done, losses = 0, []
    for epoch in range(EPOCHS):
        for sampler in samplers:
            sampler.set_epoch(epoch)
        of_epoch = []
        for (first, ones), (second, others) in zip(*loaders, strict=True):
            for group in optimizer.param_groups:
                group["lr"] = RATE * warmup_cosine(done, steps, steps * EPOCHS)
            loss = nn.functional.cross_entropy(network(torch.cat([first, second])), torch.cat([ones, others]))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            of_epoch.append(loss.item())
            for key, value in network.named_parameters():  # the first step replaces the initial weights
                now = value.detach().clone()
                average[key] = now if done == 0 else DECAY * average[key] + (1 - DECAY) * now
            done += 1
        losses.append(sum(of_epoch) / len(of_epoch))
    return average, losses


def test_two_machines_train_as_one_and_go_on(found: Path, recipe_file: Path) -> None:
    folder, port = recipe_file.parent, free_port()
    nodes = [
        WarmProcess(
            ["python", "-c", NODE], folder,
            environment(NODE_RANK=str(rank), NODE=str(rank), MASTER_ADDR="127.0.0.1", MASTER_PORT=port),
        )
        for rank in range(2)
    ]  # fmt: skip
    for node in nodes:
        assert node.wait(180) == 0, node.stderr[-3000:]
    told = [json.loads((folder / f"node-{rank}").read_text()) for rank in range(2)]
    assert [cards for cards, _ in told] == [[True] * 3, [False] * 3]  # one process writes and reports
    assert told[0][1] == told[1][1]
    assert (folder / "search" / "architecture.json").exists()
    recipe = RetrainRecipe.for_architecture(str(found), {"data": "digits", "batch_size": BATCH}, None)
    recipe._folder = folder
    expected, losses = trained_by_hand(recipe)
    after = read_weights(folder / "whole" / "weights_last.pt")
    for key, value in expected.items():
        torch.testing.assert_close(after[key], value, atol=1e-4, rtol=1e-3)
    history = read_csv(folder / "whole" / "history.csv")
    assert [float(row["train_loss"]) for row in history] == pytest.approx(losses, rel=1e-3)
    assert (folder / "parts" / "weights_last.pt").read_bytes() == (folder / "whole" / "weights_last.pt").read_bytes()
    assert [row["epoch"] for row in read_csv(folder / "parts" / "history.csv")] == ["1", "2"]
    mixed = read_weights(folder / "mixed" / "weights_last.pt")
    assert all(value.isfinite().all() and value.dtype != torch.bfloat16 for value in mixed.values())
    assert not torch.equal(mixed["stem.conv.weight"], after["stem.conv.weight"])


@pytest.mark.slow
def test_two_devices_of_torchrun(found: Path, tmp_path: Path) -> None:
    words = [
        "-m", "torch.distributed.run", "--nproc_per_node", "2", "--master_port", free_port(), "-m", "nni_proxyless",
        "retrain", "found", "data=digits", "devices=2", "accelerator=cpu", "epochs=1", "warmup_epochs=0", "threads=1",
        "--output", "out",
    ]  # fmt: skip
    done = subprocess.run(
        [sys.executable, *words],
        capture_output=True, text=True, check=False, cwd=tmp_path, env=environment(), timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.count("best epoch 1") == 1
    assert "ignoring" not in done.stderr
    card = json.loads((tmp_path / "out" / "model_card.json").read_text())
    assert (card["recipe"]["devices"], card["cost"]["epochs"]) == (2, 1)
    assert set(read_weights(tmp_path / "out" / "weights.pt")) == set(read_weights(found / "weights.pt"))
    assert not (tmp_path / "out" / ".lock").exists()


def test_what_each_launcher_leaves(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    torchrun = {
        "TORCHELASTIC_RUN_ID": "none", "WORLD_SIZE": "4", "LOCAL_WORLD_SIZE": "2", "RANK": "3", "LOCAL_RANK": "1",
        "MASTER_ADDR": "here", "MASTER_PORT": "1",
    }  # fmt: skip
    for name, value in torchrun.items():
        monkeypatch.setenv(name, value)
    with own_processes(2, 2):  # exactly what torchrun has started
        assert started_by_torchrun()
        assert not is_main_process()
        with own_processes(2, 2):  # nested, as in the command line
            assert os.environ["RANK"] == "3"
        assert all(os.environ[name] == value for name, value in torchrun.items())
    assert all(os.environ[name] == value for name, value in torchrun.items())
    assert not caplog.text
    with own_processes(2, 1):  # something else
        assert not started_by_torchrun()
        assert is_main_process()
        assert not set(torchrun) & set(os.environ)
    assert "ignoring LOCAL_RANK=1, RANK=3: this process trains alone" in caplog.text
    assert all(os.environ[name] == value for name, value in torchrun.items())
    monkeypatch.setenv("RANK", "0")
    with own_processes(2, 2):
        assert is_main_process()
    for name in torchrun:
        monkeypatch.delenv(name)
    monkeypatch.setenv("NODE_RANK", "1")
    with pytest.raises(InputError, match="num_nodes is 2: start the command on each machine with NODE_RANK from"):
        own_processes(1, 2).__enter__()
    monkeypatch.setenv("MASTER_ADDR", "here")
    monkeypatch.setenv("MASTER_PORT", "1")
    with own_processes(1, 2):
        assert not is_main_process()
        assert os.environ["MASTER_ADDR"] == "here"
    assert is_main_process()
    monkeypatch.setenv("NODE_RANK", "2")
    with pytest.raises(InputError, match="got 2"):
        own_processes(1, 2).__enter__()


def test_each_process_needs_a_batch(found: Path) -> None:
    settings = {"data": "digits", "batch_size": 400, "devices": 2, "num_nodes": 2}
    recipe = RetrainRecipe.for_architecture(str(found), settings, None)
    assert (recipe.ranks, Recipe(devices=2, num_nodes=3).ranks) == (4, 6)
    with pytest.raises(InputError, match=r"batch_size 400 is larger than .* \(360 images for each device\)"):
        prepare_retraining(recipe)
    with pytest.raises(InputError, match="strategy darts runs on one device, got devices: 1, num_nodes: 2"):
        Recipe.from_dict({"strategy": "darts", "num_nodes": 2})
