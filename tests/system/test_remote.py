"""NNI's remote training service, with an SSH server on the loopback address as the worker."""

from __future__ import annotations

import json
import os
import pwd
import re
import shutil
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from nni_proxyless import Architecture
from nni_proxyless.network.space_spec import SpaceSpec
from tests.helpers import BIN, REPOSITORY, SMALL_SPACE, Workplace, free_port, wait_until

pytestmark = pytest.mark.slow(60)
SSHD = shutil.which("sshd") or "/usr/sbin/sshd"


@pytest.fixture
def worker(tmp_path: Path) -> Iterator[tuple[int, Path]]:
    """Port and key of an SSH server that only accepts connections from this machine with this key."""
    if not Path(SSHD).is_file() or shutil.which("ssh-keygen") is None or os.geteuid() != 0:
        pytest.skip("needs root and an SSH server: apt-get install openssh-server openssh-client")
    folder, port = tmp_path / "ssh", free_port()
    folder.mkdir()
    for name in ("host", "user"):
        make = ["ssh-keygen", "-q", "-t", "rsa", "-b", "2048", "-m", "PEM", "-N", "", "-f", str(folder / name)]
        subprocess.run(make, check=True)
    (folder / "config").write_text(
        f"Port {port}\nListenAddress 127.0.0.1\nHostKey {folder / 'host'}\nPidFile {folder / 'pid'}\n"
        f"AuthorizedKeysFile {folder / 'user.pub'}\nStrictModes no\nPasswordAuthentication no\n"
        "PermitRootLogin prohibit-password\nUsePAM no\nSubsystem sftp internal-sftp\n"
        f"SetEnv NNI_PROXYLESS_CACHE={tmp_path / 'worker-cache'}\n"
    )
    Path("/run/sshd").mkdir(exist_ok=True)
    server = subprocess.Popen([SSHD, "-D", "-e", "-f", str(folder / "config")], stderr=subprocess.DEVNULL)
    yield port, folder / "user"
    server.terminate()
    server.wait(10)


def test_the_remote_experiment_comes_back_in_its_metrics(worker: tuple[int, Path], workplace: Workplace) -> None:
    port, key = worker
    shutil.copytree(REPOSITORY / "experiments" / "remote", workplace.folder / "experiments" / "remote")
    workplace.experiment = workplace.folder / "experiments" / "remote"
    # The worker measures while other tests run, and this test is about the way of its results.
    workplace.shrink(measured=True, epochs=2, warmup_epochs=1)
    config = yaml.safe_load((workplace.experiment / "config.yml").read_text())
    (machine,) = config["trainingService"]["machineList"]
    machine.update(
        host="127.0.0.1", port=port, user=pwd.getpwuid(os.geteuid()).pw_name, sshKeyFile=str(key), pythonPath=str(BIN)
    )
    changes = {"trainingService": config["trainingService"], "nniManagerIp": "127.0.0.2", "maxTrialNumber": 1}
    workplace.change("config.yml", changes)
    refused = workplace.command("nni-proxyless", "run", "experiments/remote/config.yml")
    assert refused.returncode == 2
    assert "start other services with: nnictl create" in refused.stderr

    # The worker reaches the manager on an address of its own, and no other one is open.
    create = ("create", "--config", "experiments/remote/config.yml", "--port", str(workplace.port))
    done = workplace.command("nni-proxyless", "nnictl", "--host", "127.0.0.2", *create)
    assert done.returncode == 0, done.stdout + done.stderr
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.3", workplace.port), timeout=20)
    experiment = workplace.api("experiment")["id"]
    left = Path.home() / "nni-experiments" / experiment

    def state() -> str:
        return workplace.state() + "".join(file.read_text() for file in left.rglob("*.log"))

    try:
        finished = {"DONE", "ERROR"}
        wait_until(lambda: workplace.api("check-status")["status"] in finished, seconds=600, state=state)
        (job,) = workplace.api("trial-jobs")
        assert job["status"] == "SUCCEEDED", [p.read_text() for p in left.rglob("trial.stderr")]
        _, (final,) = workplace.metrics(job["trialJobId"])
        spec = SpaceSpec.from_dict(SMALL_SPACE)
        labels = [layer.label for layer in spec.layers]
        found = Architecture.of_space(spec, dict(zip(labels, str(final["architecture"]).split(), strict=True)))
        assert sum(p.numel() for p in found.build().parameters()) == found.parameters
        assert final["latency_ms"] > 0
        assert final["measured_latency_ms"] > 0
        (log,) = left.rglob("trial.stderr")
        (line,) = re.findall(r"^architecture: (\{.*\})$", log.read_text(), flags=re.M)
        assert Architecture.from_dict(json.loads(line)).choices == found.choices
    finally:
        workplace.command("nnictl", "stop", experiment)
        shutil.rmtree(left, ignore_errors=True)
