"""Few images, and classes that differ in size: weights of the loss, balanced accuracy and warnings."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from sklearn.metrics import recall_score, top_k_accuracy_score
from sklearn.utils.class_weight import compute_class_weight
from torch import nn
from torch.nn import functional

from nni_proxyless.data.class_sizes import class_weights, differ_in_size, few_images_warnings
from nni_proxyless.errors import DataError
from nni_proxyless.training.accuracy import evaluate
from nni_proxyless.training.image_classification import ImageClassification

NAMES = ("cat", "dog", "eel")
LABELS = [0] * 60 + [1] * 30 + [2] * 10


def test_balanced_weights_are_those_of_scikit_learn() -> None:
    expected = compute_class_weight("balanced", classes=np.arange(3), y=LABELS)
    assert class_weights("balanced", LABELS, NAMES) == pytest.approx(expected)
    assert class_weights(None, LABELS, NAMES) is None
    assert class_weights([1, 2, 3], LABELS, NAMES) == [1.0, 2.0, 3.0]
    assert class_weights({"dog": 5}, LABELS, NAMES) == [1.0, 5.0, 1.0]


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ([1.0, 2.0], "must have a number for each of the 3 classes, got 2"),
        ({"dogs": 1.0}, "class_weights: unknown class 'dogs'; did you mean 'dog'"),
    ],
)
def test_weights_that_do_not_fit_the_classes(setting: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        class_weights(setting, LABELS, NAMES)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_the_training_loss_is_torchs_weighted_cross_entropy(smoothing: float) -> None:
    """Without smoothing, it is also the sum of w_y · CE over the sum of w_y."""
    weights = [0.5, 2.0, 3.0]
    module = ImageClassification(
        learning_rate=0.1, momentum=0.9, weight_decay=0.0, label_smoothing=smoothing, total_steps=1,
        class_weights=weights,
    )  # fmt: skip
    network = nn.Sequential(nn.Flatten(), nn.Linear(12, 3))
    module.set_model(network)
    module.log = lambda *_: None  # type: ignore[method-assign, assignment]
    images, labels = torch.randn(5, 3, 2, 2), torch.tensor([0, 1, 2, 2, 0])
    loss = module.training_step((images, labels), 0)
    logits = network(images)
    expected = functional.cross_entropy(logits, labels, weight=torch.tensor(weights), label_smoothing=smoothing)
    torch.testing.assert_close(loss, expected)
    if not smoothing:
        each = -torch.log_softmax(logits, 1)[torch.arange(5), labels]
        w = torch.tensor(weights)[labels]
        torch.testing.assert_close(loss, (w * each).sum() / w.sum())


class Fixed(nn.Module):
    """Network whose logits are its images."""

    def __init__(self) -> None:
        super().__init__()
        self.unused = nn.Parameter(torch.zeros(1))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return images.flatten(1)


@pytest.mark.parametrize("classes", [3, 10, 11, 20])
def test_accuracies_are_those_of_scikit_learn(classes: int) -> None:
    generator = torch.Generator().manual_seed(classes)
    labels = torch.randint(0, classes - 1, (90,), generator=generator)  # the last class has no image
    logits = torch.randn(90, classes, generator=generator) + 1.5 * functional.one_hot(labels, classes)
    batches = [(logits[i : i + 40].reshape(-1, classes, 1, 1), labels[i : i + 40]) for i in (0, 40, 80)]
    found = evaluate(Fixed(), batches)
    assert found.top1 == float((logits.argmax(1) == labels).double().mean())
    recalls = recall_score(labels, logits.argmax(1), labels=labels.unique(), average="macro")
    assert found.balanced == pytest.approx(recalls)
    assert 0 < found.balanced < 1
    if classes <= 10:
        assert found.top5 is None
    else:
        expected = top_k_accuracy_score(labels, logits.numpy(), k=5, labels=np.arange(classes))
        assert found.top5 == pytest.approx(expected)


def test_classes_that_differ_in_size() -> None:
    assert differ_in_size(LABELS)
    assert differ_in_size([0, 0, 0, 1, 1])
    assert not differ_in_size([0, 0, 0, 0, 1, 1, 1])
    assert not differ_in_size([4, 4])


def test_a_training_with_few_images_says_so() -> None:
    """288 images in batches of 64 make 4 steps in each of 50 epochs; in batches of 16, they make 18."""
    (text,) = few_images_warnings([0, 1] * 144, 200, 64, 200, 50)
    assert text == (
        "288 training images make only 200 training steps, which is too few to learn much; batch_size=16 gives 900, "
        "and epochs=125 gives 500; augmentation=strong may help"
    )
    assert few_images_warnings([0, 1] * 144, 200, 64, 500, 125) == ()
    assert few_images_warnings([0, 1] * 500, 200, 64, 15, 1) == ()
    (uncertain,) = few_images_warnings([0, 1] * 500, 25, 64, 15, 1)
    assert "accuracies on 25 held-out images have a standard error of up to 10.0 points" in uncertain
