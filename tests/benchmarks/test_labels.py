"""Labels of points in pictures are readable."""

from __future__ import annotations

import itertools

import numpy as np
from matplotlib.figure import Figure

from benchmarks.labels import Box, place_labels
from benchmarks.search_quality.summary import shown_name


def share_area(one: Box, other: Box) -> bool:
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]


def test_labels_hide_neither_points_nor_lines_nor_each_other() -> None:
    axis = Figure(figsize=(5, 4)).add_subplot()
    draw = np.random.default_rng(0)
    points = [(x, y, f"network {n}") for n, (x, y) in enumerate(draw.uniform(0.1, 0.9, (14, 2)))]
    points += [(0.5, 0.5, "twin"), (0.51, 0.51, "other twin")]
    axis.plot([x for x, _, _ in points], [y for _, y, _ in points], "o", linestyle="none")
    axis.plot([0, 1], [0, 1])
    boxes = place_labels(axis, points, size=7)
    assert len(boxes) == len(points)
    assert not any(share_area(one, other) for one, other in itertools.combinations(boxes, 2))
    frame = axis.get_window_extent()
    assert all(frame.x0 <= b[0] and b[2] <= frame.x1 and frame.y0 <= b[1] and b[3] <= frame.y1 for b in boxes)
    centres = axis.transData.transform([(x, y) for x, y, _ in points])
    along = axis.transData.transform(np.linspace((0, 0), (1, 1), 500))
    for left, bottom, right, top in boxes:
        for x, y in (*centres, *along):
            assert not (left < x < right and bottom < y < top)


def test_a_label_that_finds_no_free_place_is_still_written() -> None:
    axis = Figure(figsize=(1, 1)).add_subplot()
    points = [(0.5, 0.5, "a network with a long name")] * 3
    axis.plot([0.5], [0.5], "o")
    place_labels(axis, points, size=12)
    assert [text.get_text() for text in axis.texts] == [text for _, _, text in points]


def test_strategies_have_the_names_of_the_tables() -> None:
    names = {
        "proxyless, 64 finalists": "ProxylessNAS (ours), final selection: 64 finalists",
        "nni_proxyless_builtin, own weights, likeliest": "NNI Proxyless, no final selection, separate weights",
        "random_best_of_64, as ours": "random search, 64 networks, final selection: as ours",
        "random_one": "one random network",
        "most multiply-adds": "most multiply-adds",
    }
    assert {name: shown_name(name) for name in names} == names
