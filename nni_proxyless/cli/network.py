"""`nni-proxyless retrain | export | show | report`: parses arguments, calls other modules, prints; holds no logic."""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
from pathlib import Path
from typing import Any

from ..errors import InputError, clipped, shown
from ..files import results_folder
from ..files.nearby import nearest, no_such_path, try_folders_with
from ..files.reading import user_path
from ..values import MOST_BATCH
from . import choices, completion
from .outputs import output_folder
from .parser import whole, whole_or_dynamic
from .plan_options import add_plan
from .settings import parse_settings, with_paths_from_here
from .terminal import write_lines, write_table

_ARCHITECTURE = "an architecture file or its folder, a published network (proxyless_mobile), or mobilenet_v2_0.75"


def add_commands(commands: Any, command: Any) -> None:
    """Add the commands to the parser.

    Args:
        commands: Subparsers of the main parser.
        command: Function of `build_parser` that adds a command.
    """
    retrain = command(
        "retrain",
        _retrain,
        "Train a found network, and validate it on data that no search has learnt from.",
        "nni-proxyless retrain results/quickstart/cpu_torch epochs=60 --inherit",
        commands,
    )
    retrain.add_argument("architecture", help=_ARCHITECTURE)
    settings = retrain.add_argument(
        "settings", nargs="*", metavar="key=value", help="override the recipe (docs/retrain.md)"
    )
    settings.completer = completion.retrain_settings
    retrain.add_argument("--recipe", type=Path, help="recipe of the retraining (data of the search's recipe.yml)")
    retrain.add_argument(
        "--inherit",
        nargs="?",
        const="",
        metavar="WEIGHTS",
        help="start from these weights: a file, or a results folder (weights.pt next to the architecture)",
    )
    retrain.add_argument(
        "--output", type=output_folder, help="folder of the results (retrained, next to the architecture)"
    )
    retrain.add_argument("--overwrite", action="store_true", help="replace the results of another recipe there")
    add_plan(retrain, "print what would be trained and written, and how long it would take; write nothing")

    export = command(
        "export",
        _export,
        "Write a trained network as ONNX, int8 ONNX, TorchScript, torch.export and state dict; check and measure each.",
        "nni-proxyless export results/quickstart/cpu_torch/retrained --format onnx int8 --out exported",
        commands,
    )
    export.add_argument("architecture", help="folder of a search's or retraining's results, or an architecture file")
    export.add_argument("--weights", type=Path, help="weights of the network (weights.pt next to the architecture)")
    formats = export.add_argument(
        "--format", nargs="+", default=["onnx", "state_dict"], metavar=choices.braces(choices.FORMATS),
        help="formats of the files (onnx state_dict)",
    )  # fmt: skip
    formats.completer = completion.one_of(choices.FORMATS)
    export.add_argument("--out", type=output_folder, help="folder of the files (exported, next to the architecture)")
    export.add_argument("--table", type=Path, nargs="+", default=[], help="latency tables (those in the results)")
    export.add_argument("--recipe", type=Path, help="recipe that names the data (recipe.yml next to the architecture)")
    export.add_argument(
        "--images", type=whole(1, 1_000_000), default=256, help="number of images to check and calibrate with (256)"
    )
    export.add_argument(
        "--batch", type=whole_or_dynamic(MOST_BATCH), default=1, metavar="N|dynamic",
        help="number of images that the files take at a time, or dynamic (1)",
    )  # fmt: skip
    export.add_argument("--opset", type=whole(1, 99), default=17, help="version of ONNX's operators (17)")
    export.add_argument(
        "--accept-loss",
        action="store_true",
        help="write int8 even if it agrees with float32 on less than 95 %% of images",
    )
    export.add_argument("--no-measure", action="store_true", help="do not measure latencies")
    export.add_argument("--dry-run", action="store_true", help="print what would be checked and written; write nothing")

    show = command(
        "show",
        _show,
        "Show a network block by block: shape, kernel, expansion, parameters, multiply-adds, latency.",
        "nni-proxyless show results/quickstart/cpu_torch --against mobilenet_v2",
        commands,
    )
    show.add_argument("architecture", help=_ARCHITECTURE)
    show.add_argument("--table", type=Path, help="latency table (latency_table.yml next to the architecture)")
    show.add_argument("--against", help="another architecture: show where they differ")

    report = command(
        "report",
        _report,
        "Make an HTML page of an experiment: architectures, accuracy against latency, cross table, search history.",
        "nni-proxyless report results/quickstart",
        commands,
    )
    report.add_argument("experiment", help="folder of results, or the id of an NNI experiment, which may be running")
    report.add_argument("--out", type=output_folder, help="folder of the report (report, in the folder of results)")
    report.add_argument(
        "--baselines",
        action="store_true",
        help="train MobileNetV2 and random networks of the same latency with the recipe of the retrained networks",
    )
    report.add_argument(
        "--random-networks", type=whole(0, 1000), metavar="N", help="number of random networks per found network (3)"
    )


def _retrain(options: argparse.Namespace) -> int:
    from ..deploy.retrain_recipe import RetrainRecipe

    settings = parse_settings(options.settings)
    file = _architecture_file(options.architecture)
    if (start := options.recipe or file) is not None:
        settings = with_paths_from_here(settings, Path(start).resolve().parent)
    if options.inherit is not None:
        if "inherit" in settings:
            raise InputError(f"the weights are given twice, by --inherit and as inherit={shown(settings['inherit'])}")
        if options.inherit == "" and file is None:
            raise InputError(f"--inherit needs a file of weights: {options.architecture} is a name")
        chosen = Path(options.inherit) if options.inherit else (file or Path()).parent / results_folder.WEIGHTS
        settings["inherit"] = str(chosen.resolve())
    recipe = RetrainRecipe.for_architecture(options.architecture, settings, options.recipe, "command line")

    from ..search.earlier import check_earlier
    from ..search.early_checks import check_inputs
    from ..training.ranks import is_main_process, own_processes

    beside = Path("results") / "retrained" / options.architecture if file is None else file.parent / "retrained"
    output = options.output or beside
    if options.show_recipe:
        from .show_recipe import show_retraining

        show_retraining(recipe, options.architecture, settings, options.recipe, output)
        if not options.dry_run:
            return 0
    check_inputs(recipe)  # before torch is imported
    recipe.check_output(output)
    check_earlier(output, recipe, results_folder.NEEDED_BY_RETRAINING, overwrite=options.overwrite)
    if options.dry_run:
        from . import dry_run

        with own_processes():
            dry_run.dry_run_retraining(recipe, output)
        return 0

    from ..files.claims import claimed

    with contextlib.ExitStack() as stack:
        stack.enter_context(own_processes(recipe.devices, recipe.num_nodes))
        if is_main_process():
            stack.enter_context(claimed(output))

        from ..deploy.retrain import prepare_retraining, run_retraining

        card = run_retraining(prepare_retraining(recipe), output)
        if not is_main_process():
            return 0
    found = card["results"]
    for text in card["warnings"]:
        sys.stdout.write(f"warning: {text}\n")
    sys.stdout.write(
        f"best epoch {found['best_epoch']}: {_accuracies(found['validation'])} on "
        f"{card['data']['validation_images']} held-out images\n"
        + (f"{_accuracies(found['test'])} on {found['test']['images']} test images\n" if found["test"] else "")
        + f"results: {output.resolve()}\n"
    )
    return 0


def _accuracies(found: dict[str, Any]) -> str:
    names = {"top1": "top-1", "balanced": "balanced", "top5": "top-5"}
    return ", ".join(f"{name} {found[key]:.4f}" for key, name in names.items() if key in found)


def _export(options: argparse.Namespace) -> int:
    from ..network.architecture import Architecture

    file = _architecture_file(options.architecture)
    if file is None:
        raise InputError(
            f"{options.architecture} is neither an architecture file nor a folder with an architecture.json"
        )
    architecture = Architecture.load(file)

    from ..deploy.export_checks import check_formats, check_out, find_tables, written_files
    from ..deploy.retrain_recipe import check_names_no_function, of_search
    from ..network.weights import check_file

    formats = check_formats(options.format)
    recipe = options.recipe or file.parent / results_folder.RECIPE
    if options.recipe is not None and not recipe.is_file():
        raise InputError(f"cannot read recipe {recipe}: there is no such file; give a recipe.yml")
    if options.recipe is None:
        check_names_no_function(recipe, "--recipe runs it")
    if recipe.is_file():
        of_search(recipe)
    out = options.out or file.parent / "exported"
    weights = options.weights or file.parent / results_folder.WEIGHTS
    check_file(weights)
    check_out(out, formats, weights)
    tables = find_tables(options.table, file)

    from ..deploy.export import export, load_images
    from ..latency.difference import difference_warning, relative_error

    images = load_images(architecture, recipe, options.images)
    if options.dry_run:
        from . import dry_run

        shown = f"{len(images.check)} {images.source}"
        dry_run.dry_run_export(out, written_files(formats), tables, shown, measure=not options.no_measure)
        return 0
    done = export(
        architecture, weights, out, formats, images, tables=tables, measure=not options.no_measure,
        batch=options.batch, opset=options.opset, accept_loss=options.accept_loss,
    )  # fmt: skip
    lines = [f"compared with PyTorch on {len(images.check)} {images.source}"]
    for one in done:
        line = f"{one.file}: logits differ by {one.max_difference:.2g} at most, {100 * one.agreement:.1f} % same class"
        if one.accuracy is not None:
            line += f", accuracy {one.accuracy:.4f}"
        if one.measured_latency_ms is not None:
            line += f"; {one.measured_latency_ms:.4g} ms with {one.runtime}"
            if one.predicted_latency_ms is not None:
                off = relative_error(one.predicted_latency_ms, one.measured_latency_ms)
                line += f" (predicted {one.predicted_latency_ms:.4g}, error {100 * off:+.1f} %)"
        lines.append(line)
        warning = difference_warning(one.predicted_latency_ms, one.measured_latency_ms)
        if warning is not None:
            lines.append(f"warning: {one.file}: {warning}")
    write_lines(*lines, f"results: {out.resolve()}")
    return 0


def _show(options: argparse.Namespace) -> int:
    from ..deploy.describe import block_rows, differences
    from ..latency.judgement import load_judged

    architecture = _architecture(options.architecture)
    file = _architecture_file(options.architecture)
    path = options.table or (file.parent / results_folder.LATENCY_TABLE if file is not None else None)
    table = load_judged(path) if path is not None and (options.table or path.is_file()) else None
    against = _architecture(options.against, architecture.spec) if options.against else None
    differing = [] if against is None else ["", *differences(architecture, against)]
    rows, sums = block_rows(architecture, table)
    write_table(rows)
    write_lines(*sums, *differing)
    return 0


def _report(options: argparse.Namespace) -> int:
    from ..report import find_results, make_report

    if not options.experiment.strip():
        raise InputError(f"{options.experiment!r} is neither a folder of results nor the id of an NNI experiment")
    if options.random_networks is not None and not options.baselines:
        raise InputError("--random-networks needs --baselines")
    results = find_results(options.experiment)
    if options.baselines:
        from . import baselines

        if not user_path(options.experiment, "results", InputError).is_dir():
            raise InputError(
                f"--baselines needs a folder of results to train in, and {clipped(options.experiment)} is the id of an "
                "experiment; give the folder that `run` has collected its results in"
            )
        baselines.train(results, options.random_networks)
        results = find_results(options.experiment)
    page = make_report(results, options.out)
    sys.stdout.write(f"report: {page.resolve()}\n")
    return 0


def _architecture_file(text: str) -> Path | None:
    """The architecture file that a path or its folder stands for; `None` if the text is the name of a network."""
    if not text.strip():
        raise InputError(f"{text!r} does not name an architecture; give {_ARCHITECTURE}")
    path = user_path(text, "architecture", InputError)
    if path.is_dir():
        file = path / results_folder.ARCHITECTURE
        if not file.exists():
            end = try_folders_with(path, file.name, "give the folder of a search's results")
            raise InputError(f"cannot read architecture {clipped(text)}: the folder has no {file.name}; {end}")
        return file
    if path.suffix == ".json" or path.exists():
        return path
    if os.sep in text:
        raise InputError(no_such_path(text, f"give {_ARCHITECTURE}"))
    from ..network.catalogue import is_like_a_network

    near = nearest(text)
    if near is not None and not is_like_a_network(text):
        raise InputError(f"there is no network, file or folder {clipped(text)}; did you mean {near}?")
    return None


def _architecture(text: str, like: Any = None) -> Any:
    from ..network.architecture import Architecture
    from ..network.catalogue import by_name

    file = _architecture_file(text)
    return Architecture.of_space(*by_name(text, like)) if file is None else Architecture.load(file)
