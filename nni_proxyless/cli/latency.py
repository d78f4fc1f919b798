"""The arguments of `nni-proxyless latency …`."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ..values import MOST_BATCH, MOST_SEED, MOST_SUGGESTED, MOST_THREADS
from . import choices, completion
from .latency_commands import run_compare, run_import, run_list, run_measure, run_show, run_validate
from .latency_fit_commands import run_fit, run_predict, run_suggest
from .outputs import output_file, output_folder
from .parser import positive, whole

AddCommand = Callable[..., argparse.ArgumentParser]
MOST_NETWORKS, MOST_PROCESSES, MOST_ROWS = 10_000, 64, 1_000_000
COUNTS_HELP = "CSV file of what the candidates compute: layer, candidate and numeric columns"


def add_commands(tables: Any, command: AddCommand) -> None:
    """Add the subcommands of `latency`.

    Args:
        tables: Argparse group of the subcommands.
        command: Function that adds one subcommand to the group.
    """
    measure: Any = command(
        "measure",
        run_measure,
        "Measure the operators of a space, calibrate on whole networks and write a latency table.",
        "nni-proxyless latency measure --space mobilenetv2_imagenet --backend onnxruntime --out this_machine.yml",
        tables,
    )
    shipped = choices.listed(choices.spaces())
    space = measure.add_argument(
        "--space", required=True, help=f"path of a space file (YAML), or a shipped space: {shipped}"
    )
    space.completer = completion.spaces
    _add_backend(measure, required=True)
    measure.add_argument("--out", type=output_file, required=True, help="file of the table")
    measure.add_argument(
        "--networks",
        type=whole(0, MOST_NETWORKS),
        default=12,
        help="number of networks for the calibration (12; 0 for none)",
    )
    measure.add_argument("--samples", type=output_file, help="CSV file for the raw samples")
    measure.add_argument(
        "--processes",
        type=whole(1, MOST_PROCESSES),
        help="number of measuring processes (2, or up to 6 if the table is not good)",
    )
    measure.add_argument("--accept", action="store_true", help="write the table even if it is bad")

    listing = command(
        "list",
        run_list,
        "List the tables that searches have measured and kept, with their quality and age.",
        "nni-proxyless latency list",
        tables,
    )
    listing.add_argument("--remeasure", action="store_true", help="measure all listed tables of this machine again")

    validate = command(
        "validate",
        run_validate,
        "Measure random networks that did not calibrate a table, and compare them with its predictions.",
        "nni-proxyless latency validate this_machine.yml --space mobilenetv2_imagenet --networks 30",
        tables,
    )
    validate.add_argument("table", type=Path, help="file of the table")
    validate.add_argument("--space", help="name or file of the space (the space for which the table was measured)")
    validate.add_argument("--networks", type=whole(2, MOST_NETWORKS), default=30, help="number of networks (30)")
    validate.add_argument("--seed", type=whole(0, MOST_SEED), default=0, help="seed of the random networks (0)")
    validate.add_argument(
        "--out", type=output_folder, help="folder for CSV file and plot (validation_<table>, next to the table)"
    )
    _add_backend(validate, required=False)

    fit = command(
        "fit",
        run_fit,
        "Fit a table to the latencies of whole networks.",
        "nni-proxyless latency fit --measurements measured.csv --basis pixel3.yml xeon.yml --out new_phone.yml",
        tables,
    )
    fit.add_argument("--measurements", type=Path, required=True, help="CSV file: a column per layer, and latency_ms")
    fit.add_argument("--basis", type=Path, nargs="+", default=[], help="tables of other devices, for few measurements")
    fit.add_argument("--space", help="space of the layers, whose operations are counted; name or file")
    fit.add_argument("--counts", type=Path, help=COUNTS_HELP)
    fit.add_argument("--no-counts", action="store_true", help="do not use counts, although --space is given")
    fit.add_argument("--device", default="not named", help="name of the measured device, for the table")
    fit.add_argument("--out", type=output_file, required=True, help="file of the table")
    fit.add_argument(
        "--suggest", type=whole(0, MOST_SUGGESTED), default=0, metavar="N", help="suggest N networks to measure next"
    )
    fit.add_argument(
        "--suggestions", type=output_file, help="CSV file for the suggested networks (<out>.suggestions.csv)"
    )

    suggest = command(
        "suggest",
        run_suggest,
        "Choose the networks whose latencies tell most about a new device. Nothing needs to be measured yet.",
        "nni-proxyless latency suggest --space mobilenetv2_imagenet --networks 20 --out to_time.csv",
        tables,
    )
    suggest.add_argument("--space", help="name or file of the space")
    suggest.add_argument("--counts", type=Path, help=COUNTS_HELP)
    suggest.add_argument("--basis", type=Path, nargs="+", default=[], help="tables of other devices")
    suggest.add_argument("--networks", type=whole(1, MOST_SUGGESTED), default=20, help="number of networks (20)")
    suggest.add_argument("--measurements", type=Path, help="CSV file of the networks that are already measured")
    suggest.add_argument("--among", type=Path, help="CSV file of the networks to choose from (any of the space)")
    suggest.add_argument(
        "--seed", type=whole(0, MOST_SEED), default=0, help="seed of the random networks to choose from (0)"
    )
    suggest.add_argument(
        "--out", type=output_file, required=True, help="CSV file for the networks, with a column per layer"
    )

    predict = command(
        "predict",
        run_predict,
        "Predict the latency of architectures, or of distributions over architectures, from a CSV or JSON file.",
        "nni-proxyless latency predict pixel3.yml --architectures candidates.csv --out predicted.csv",
        tables,
    )
    predict.add_argument("table", type=Path, help="file of the table")
    predict.add_argument(
        "--architectures",
        type=Path,
        required=True,
        help="CSV file with a column per layer, or JSON file of architectures, NNI samples or distributions",
    )
    predict.add_argument("--space", help="name or file of the space (the space for which the table was measured)")
    predict.add_argument("--out", type=output_file, help="CSV file for the predictions (printed if not given)")
    predict.add_argument("--std", action="store_true", help="add standard deviations, which fitted tables have")
    predict.add_argument(
        "--budget-ms",
        type=positive("milliseconds"),
        help="list the networks that may be on either side of this budget",
    )

    show = command(
        "show",
        run_show,
        "Show the content of a table: its device, a bar for each candidate, the most expensive entries.",
        "nni-proxyless latency show pixel3.yml --space mobilenetv2_imagenet",
        tables,
    )
    show.add_argument("table", type=Path, help="file of the table")
    show.add_argument("--space", help="name or file of the space (the space for which the table was measured)")
    show.add_argument(
        "--top", type=whole(1, MOST_ROWS), default=10, help="number of most expensive entries to show (10)"
    )

    importing: Any = command(
        "import",
        run_import,
        "Import a table published with ProxylessNAS or once-for-all.",
        "nni-proxyless latency import mobile_trim.yaml --format proxylessnas --out pixel1.yml",
        tables,
    )
    importing.add_argument("file", type=Path, help="published table (YAML)")
    form = importing.add_argument(
        "--format", required=True, metavar=choices.braces(choices.PUBLISHED), help="format of the file"
    )
    form.completer = completion.one_of(choices.PUBLISHED)
    importing.add_argument("--device", help="name of the measured device, for the table (the file name)")
    importing.add_argument("--out", type=output_file, required=True, help="file of the table")

    comparing = command(
        "compare",
        run_compare,
        "Compare two tables: rank correlation by kind of operator, and the largest disagreements.",
        "nni-proxyless latency compare pixel1.yml this_machine.yml",
        tables,
    )
    comparing.add_argument("first", type=Path, help="first table")
    comparing.add_argument("second", type=Path, help="second table")
    comparing.add_argument("--top", type=whole(1, MOST_ROWS), default=10, help="number of disagreements to show (10)")


def _add_backend(parser: argparse.ArgumentParser, required: bool) -> None:
    which = "" if required else " (the backend of the table)"
    backend: Any = parser.add_argument(
        "--backend",
        required=required,
        metavar=choices.braces(choices.BACKENDS),
        help=f"backend that measures{which}; command runs your own program, flops and params only count",
    )
    backend.completer = completion.one_of(choices.BACKENDS)
    closed: dict[str, tuple[str, ...]] = {
        "dtype": choices.DTYPES, "tool": choices.TOOLS, "unit": choices.UNITS,
    }  # fmt: skip
    for name, kind, text in (
        ("threads", whole(1, MOST_THREADS), "number of threads (1)"),
        ("batch", whole(1, MOST_BATCH), "number of images in a batch (1)"),
        ("dtype", str, "onnxruntime, openvino: number format (float32)"),
        ("device", str, "torch: cpu or cuda (cpu); command: name of the device"),
        ("command", str, "command: shell command that prints the latency; {model} becomes the path of an ONNX file"),
        ("tool", str, "command: device tool that it runs (docs/latency.md)"),
        ("pattern", str, "command: regular expression whose only group is the latency (the only time in the output)"),
        ("unit", str, "command: unit of a latency that is printed without a unit (ms)"),
        ("timeout-s", positive("seconds"), "command: seconds after which a run counts as failed (60)"),
        ("retries", whole(0, 100), "command: number of times that a failed run is repeated (2)"),
    ):
        # The prefix avoids a clash with `command`, which the main parser uses for the chosen command.
        names = closed.get(name)
        made: Any = parser.add_argument(
            f"--{name}", type=kind, dest=f"backend_{name.replace('-', '_')}", help=text,
            metavar=choices.braces(names) if names else name.upper(),
        )  # fmt: skip
        if names:
            made.completer = completion.one_of(names)
