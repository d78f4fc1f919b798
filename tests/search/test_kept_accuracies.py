"""Accuracies of finalists that several targets, budgets and processes share, and the batches behind them."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from nni_proxyless.search.kept_accuracies import KeptAccuracies
from nni_proxyless.training.accuracy import Batch
from nni_proxyless.training.kept_batches import KeptBatches

HERE = {"weights": "of epoch 20", "threads": 1}


def of(path: Path) -> dict[str, float]:
    return KeptAccuracies(path, HERE).known


def test_others_read_them_to_the_last_digit(tmp_path: Path) -> None:
    path = tmp_path / "accuracies.json"
    one, other = KeptAccuracies(path, HERE), KeptAccuracies(path, HERE)
    one.add("k3 k5", 1 / 3)
    one.exchange()
    other.add("k5 k3", 2 / 3)
    other.exchange()
    assert other.known == of(path) == {"k3 k5": 1 / 3, "k5 k3": 2 / 3}
    assert KeptAccuracies(path, {**HERE, "threads": 2}).known == {}
    KeptAccuracies(path, {**HERE, "threads": 2}).exchange()  # nothing is new
    assert of(path) == other.known


def test_processes_at_the_same_time_lose_nothing(tmp_path: Path) -> None:
    path = tmp_path / "accuracies.json"
    program = (
        "import sys\n"
        "from pathlib import Path\n"
        "from nni_proxyless.search.kept_accuracies import KeptAccuracies\n"
        f"kept = KeptAccuracies(Path(sys.argv[1]), {HERE!r})\n"
        "for number in range(25):\n"
        "    kept.add(f'{sys.argv[2]} {number}', number / 25)\n"
        "    kept.exchange()\n"
    )
    running = [subprocess.Popen([sys.executable, "-c", program, str(path), name]) for name in ("a", "b")]
    assert [one.wait() for one in running] == [0, 0]
    assert of(path) == {f"{name} {number}": number / 25 for name in ("a", "b") for number in range(25)}


@pytest.mark.parametrize("damage", ["truncated", "digit", "text", "schema", "list"])
def test_a_damaged_file_is_written_anew(tmp_path: Path, damage: str, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "accuracies.json"
    kept = KeptAccuracies(path, HERE)
    kept.add("k3 k5", 0.625)
    kept.exchange()
    good = path.read_text()
    damaged = {
        "truncated": good[: len(good) // 2],
        "digit": good.replace("0.625", "0.925"),
        "text": "\x00",
        "schema": good.replace("accuracies@1", "accuracies@2"),
        "list": "[1, 2]",
    }[damage]
    assert damaged != good
    path.write_text(damaged)
    again = KeptAccuracies(path, HERE)
    assert again.known == {}
    again.add("k5 k3", 0.5)
    again.exchange()
    assert of(path) == {"k5 k3": 0.5}
    assert caplog.text.count("its networks are evaluated again") == 1
    assert str(path) in caplog.text


def test_where_nothing_can_be_written_the_search_goes_on(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "accuracies.json"
    path.mkdir()
    kept = KeptAccuracies(path, HERE)
    for number in range(2):
        kept.add(f"k{number}", 0.5)
        kept.exchange()
    assert kept.known == {"k0": 0.5, "k1": 0.5}
    assert caplog.text.count("not kept for other targets and budgets") == 1


def batches(seed: int = 0, size: int = 2) -> list[Batch]:
    images = torch.rand(4, 3, 2, 2, generator=torch.Generator().manual_seed(seed))
    return list(zip(images.split(size), torch.arange(4).split(size), strict=True))


@pytest.mark.parametrize("most_bytes", [0, 4 * 3 * 2 * 2 * 4 - 1, 4 * 3 * 2 * 2 * 4])
def test_batches_are_kept_if_they_fit(most_bytes: int) -> None:
    readings = []

    def read() -> list[Batch]:
        readings.append(1)
        return batches()

    kept = KeptBatches(read, most_bytes)
    next(iter(kept))  # a reading that is broken off keeps nothing
    for _ in range(3):
        for (images, labels), (own, truth) in zip(batches(), kept, strict=True):
            assert torch.equal(images, own)
            assert torch.equal(labels, truth)
    assert len(readings) == (2 if most_bytes == 192 else 4)


def test_digest_by_hand_and_what_changes_it() -> None:
    by_hand = hashlib.sha256()
    for images, labels in batches():
        by_hand.update(b"torch.float32 (2, 3, 2, 2)" + images.numpy().tobytes())
        by_hand.update(b"torch.int64 (2,)" + labels.numpy().tobytes())
    digest = by_hand.hexdigest()
    assert KeptBatches(batches).digest() == KeptBatches(batches, 0).digest() == digest
    images, labels = batches()[0]
    others = [
        batches(seed=1), batches(size=4), batches()[::-1], [(images, labels + 1), batches()[1]],
    ]  # fmt: skip
    assert digest not in {KeptBatches(lambda one=one: one).digest() for one in others}  # type: ignore[misc]


def test_the_file_says_what_it_is(tmp_path: Path) -> None:
    kept = KeptAccuracies(tmp_path / "accuracies.json", HERE)
    kept.add("k3 k5", 0.625)
    kept.exchange()
    content = json.loads((tmp_path / "accuracies.json").read_text())
    assert content["schema"] == "nni-proxyless/accuracies@1"
    assert list(content["accuracies"].values()) == [{"k3 k5": 0.625}]
