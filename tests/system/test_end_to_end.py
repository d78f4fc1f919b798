"""Experiments with a real NNI manager, and an installation from a wheel in an empty environment."""

from __future__ import annotations

import importlib.metadata
import json
import os
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

from nni_proxyless import Architecture
from tests.helpers import BIN, REPOSITORY, Workplace, read_csv, wait_until

pytestmark = pytest.mark.slow
KEYS = {"default", "latency_ms", "expected_latency_ms", "expected_over_budget", "entropy", "train_loss"}


def test_several_architectures_are_retrained_through_the_manager(workplace: Workplace) -> None:
    workplace.start_trials_warm()
    workplace.experiment = workplace.folder / "experiments" / "retrain"
    workplace.change("recipe.yml", {"epochs": 2, "warmup_epochs": 1, "threads": 1})
    named = ["architectures/cpu_onnxruntime.json", "mobilenet_v2_0.5"]
    space = {"architecture": {"_type": "choice", "_value": named}}
    workplace.change("config.yml", {"searchSpace": space, "maxTrialNumber": 2})
    done = workplace.command("nni-proxyless", "run", "experiments/retrain/config.yml", "--port", str(workplace.port))
    assert done.returncode == 0, done.stderr
    assert "trial 0 result 2: accuracy" in done.stderr
    assert "measuring target" not in done.stderr
    results = workplace.folder / "results" / "retrain"
    rows = read_csv(results / "summary.csv")
    assert len(rows) == 2
    names = {"cpu_onnxruntime": "cpu_onnxruntime", "mobilenet_v2_0.5": ""}
    for row in rows:
        folder = (workplace.folder / row["architecture"]).parent
        assert row["target"] == names.pop(folder.name)
        card = json.loads((folder / "model_card.json").read_text())
        assert row["accuracy"] == f"{card['results']['validation']['top1']:.4f}"
        assert Path(card["trial_parameters"]["architecture"]).name.removesuffix(".json") == folder.name
        Architecture.load(folder / "architecture.json").build(pretrained=folder / "weights.pt")
    assert not names
    wait_until(lambda: not workplace.processes())


def test_nnictl_create_as_it_stands(workplace: Workplace) -> None:
    """`nnictl` can run the configuration without our `run` command. The trials then measure the tables themselves."""
    workplace.start_trials_warm()
    workplace.shrink(epochs=2, warmup_epochs=1, measured=True)
    words = ["create", "--config", "experiments/quickstart/config.yml", "--port", str(workplace.port)]
    done = subprocess.run(
        [str(BIN / "nnictl"), *words], capture_output=True, text=True, check=False, timeout=300,
        cwd=workplace.folder, env=workplace.environment, stdin=subprocess.DEVNULL,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    wait_until(lambda: workplace.api("check-status")["status"] == "DONE", seconds=600)
    jobs = workplace.api("trial-jobs")
    logs = [workplace.api_text(f"trial-file/{job['trialJobId']}/trial.stderr") for job in jobs]
    assert [job["status"] for job in jobs] == ["SUCCEEDED", "SUCCEEDED"], logs
    targets = set()
    for job, records in zip(jobs, (3, 2), strict=True):  # the second trial starts from the first one's warm-up
        intermediate, final = workplace.metrics(job["trialJobId"])
        assert [set(record) for record in intermediate + final] == [KEYS] * records
        targets.add(json.loads(job["hyperParameters"][0])["parameters"]["target"])
    assert targets == {"cpu_torch", "cpu_onnxruntime"}
    assert len(list((workplace.folder / "cache" / "tables").glob("*.yml"))) == 2
    workplace.command("nnictl", "stop", "--all")


def test_a_failed_trial_is_named_and_the_others_go_on(workplace: Workplace) -> None:
    workplace.start_trials_warm()
    workplace.shrink(epochs=1, warmup_epochs=0)
    choices = {"learning_rate": {"_type": "choice", "_value": [1e30, 0.05]}}
    workplace.change("config.yml", {"searchSpace": choices})
    done = workplace.command("nni-proxyless", "run", "experiments/quickstart/config.yml", "--port", str(workplace.port))
    assert done.returncode == 1, done.stderr
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("nni-proxyless run: error: trial ")
    assert "FAILED ({'learning_rate': 1e+30})" in last
    assert "of the architecture became nan in epoch 1, step 1" in last
    assert "; lower the learning rate or set gradient_clip_val" in last
    rows = read_csv(workplace.folder / "results" / "quickstart" / "summary.csv")
    assert len(rows) == 1
    assert (
        workplace.folder / "results" / "quickstart" / "cpu_torch" / "learning_rate-0.05" / "architecture.json"
    ).is_file()
    wait_until(lambda: not workplace.processes())


def lend_pytorch(environment: Path, folder: Path) -> list[str]:
    """Let a new environment import PyTorch from this one, and return its packages with their versions.

    PyTorch and the libraries of its GPUs are several GB. Pip finds them as installed, and does not replace them,
    because they are outside the environment.
    """
    folder.mkdir()
    lent = []
    for distribution in importlib.metadata.distributions():
        name = distribution.metadata["Name"].lower().replace("_", "-")
        if name in ("torch", "triton") or name.startswith(("nvidia-", "cuda-")):
            lent.append(f"{name}=={distribution.version}")
            for top in {file.parts[0] for file in distribution.files or () if file.parts[0] != ".."}:
                if not (folder / top).is_symlink():
                    (folder / top).symlink_to(Path(str(distribution.locate_file(top))))
    (site,) = environment.glob("lib/python*/site-packages")
    (site / "lent.pth").write_text(f"{folder}\n")
    return lent


@pytest.mark.packaging
def test_a_wheel_runs_the_quickstarts_search_in_an_empty_environment(tmp_path: Path) -> None:
    """Build and check source distribution and wheel, and search without and with the extra `onnx`.

    Pip installs the wheel and everything that it needs. Only PyTorch is there before.
    """
    dist = tmp_path / "dist"
    # The source distribution first, and the wheel from it.
    subprocess.run(
        [sys.executable, "-m", "build", "--outdir", str(dist), str(REPOSITORY)], check=True, capture_output=True
    )
    (wheel,), (source,) = dist.glob("*.whl"), dist.glob("*.tar.gz")
    subprocess.run([sys.executable, "-m", "twine", "check", "--strict", str(wheel), str(source)], check=True)
    subprocess.run([sys.executable, "-m", "check_wheel_contents", str(wheel)], check=True)
    with tarfile.open(source) as archive:
        top = {name.split("/")[1] for name in archive.getnames() if "/" in name}
    assert top == {
        "nni_proxyless", "search_spaces", "experiments", "benchmarks", "tests", "docs", "README.md", "CHANGELOG.md",
        "LICENSE", "CITATION.cff", "SECURITY.md", "pyproject.toml", "PKG-INFO", ".gitignore",
    }  # fmt: skip
    subprocess.run([sys.executable, "-m", "venv", str(tmp_path / "env")], check=True)
    python = tmp_path / "env" / "bin" / "python"
    far = tmp_path / "far" / "away"
    far.mkdir(parents=True)
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    environment["NNI_PROXYLESS_CACHE"] = str(tmp_path / "cache")

    lent = lend_pytorch(tmp_path / "env", tmp_path / "lent")
    assert any(one.startswith("torch==") for one in lent)

    def install(what: str) -> None:
        words = [str(python), "-m", "pip", "install", "--quiet", "--no-compile", what, *lent]
        subprocess.run(words, check=True, capture_output=True)

    def search(target: str, output: str, *settings: str) -> subprocess.CompletedProcess[str]:
        # On one thread, because two wait for each other on a machine whose cores are in use.
        words = [
            str(python.parent / "nni-proxyless"), "search", "quickstart", f"target={target}", "threads=1", *settings
        ]  # fmt: skip
        return subprocess.run(
            [*words, "--output", output], capture_output=True, text=True, check=False, cwd=far, env=environment
        )

    try:
        install(str(wheel))
        done = search("cpu_torch", "small", "epochs=1", "warmup_epochs=0", "finalists=2", "accept_tables=true")
        assert done.returncode == 0, done.stderr
        assert "Warning" not in done.stderr
        assert Architecture.load(far / "small" / "architecture.json").target == "cpu_torch"
        done = search("cpu_onnxruntime", "none")
        assert done.returncode == 2
        (line,) = done.stderr.splitlines()
        assert "pip install 'nni-proxyless[onnx]'" in line
        install(f"{wheel}[onnx]")
        subprocess.run([str(python), "-m", "pip", "check"], check=True)
        done = search("cpu_onnxruntime", "found", "epochs=3", "warmup_epochs=1")
        assert done.returncode == 0, done.stderr
        assert Architecture.load(far / "found" / "architecture.json").target == "cpu_onnxruntime"
        where = [str(python), "-c", "import nni_proxyless; print(nni_proxyless.__file__)"]
        assert (
            str(tmp_path / "env") in subprocess.run(where, capture_output=True, text=True, cwd=far, check=True).stdout
        )
    finally:
        shutil.rmtree(tmp_path / "env")  # the environment takes more than a GB
