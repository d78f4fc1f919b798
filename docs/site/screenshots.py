"""Take the pictures of NNI's web UI, TensorBoard and the report in `docs/images`.

    python docs/site/screenshots.py [--folder FOLDER]

It runs the quickstart through NNI's manager in a temporary home folder, retrains and exports the networks that it
found, and writes the report. Then it opens the pages in Debian's Chromium (packages chromium and chromium-driver)
without a network. The run starts with the latency tables that this account has kept, and measures again, so that a
busy machine does not spoil good tables. With `--folder`, the run and its manager stay, and a second call only takes the
pictures again.
"""

from __future__ import annotations

import argparse
import io
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from PIL import Image
from selenium import webdriver
from selenium.webdriver.chrome.service import Service

REPOSITORY = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(REPOSITORY))

from nni_proxyless.files.resources import cache_folder  # noqa: E402
from tests.helpers import BIN, Workplace, wait_until  # noqa: E402
from tests.system.test_quickstart import pick, press  # noqa: E402
from tests.warm_changes import MEASURE_ONCE  # noqa: E402

IMAGES = REPOSITORY / "docs" / "images"
TARGETS = ("cpu_torch", "cpu_onnxruntime")
WIDTH, HEIGHT = 1600, 1010  # of the browser's window, so that headings and the table of trials are shown whole
# NNI's UI loads the font of its icons from a network, without which they are empty boxes. It cuts the names of metrics
# in its menus, in the table and at the outer axes.
STYLE = """
i[data-icon-name] { visibility: hidden }
.parcoords { transform: scale(0.95) }
.parcoords svg { overflow: visible }
.ms-DetailsHeader-cell, .ms-DetailsHeader-cell * { overflow: visible !important; text-overflow: clip !important }
.ms-DetailsHeader-cellName { font-size: 13px !important }
.ms-Dropdown-container, .ms-Dropdown { min-width: 175px }
"""
# Parts of the report, from the top of the first element to the end of the last one, and the file.
PARTS = (
    ("h1", "#verdict", "report_verdict"),
    ("#accuracy_latency", "#accuracy_latency ~ figure", "report_accuracy"),
    ("#architectures", "#architectures ~ figure", "report_architectures"),
    ("#progress", "#progress ~ figure + figure", "report_probabilities"),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=int, default=30, help="epochs of each search (30, as in the quickstart)")
    parser.add_argument("--retrain-epochs", type=int, default=10, help="epochs of each retraining (10)")
    parser.add_argument("--results", type=Path, help="results whose report is shown (those of the run)")
    parser.add_argument("--folder", type=Path, help="folder of the run, which stays; a run that is there is used")
    options = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="screenshots-")) if options.folder is None else options.folder.resolve()
    there = (folder / "port").is_file()
    place = workplace_of(folder, there=there)
    browser = None
    try:
        if not there:
            run_experiment(place, options.epochs, options.retrain_epochs)
            (folder / "port").write_text(str(place.port))
        browser = open_browser()
        take_web_ui(browser, place)
        take_tensorboard(browser, place)
        take_report(browser, place, options.results)
    finally:
        if browser is not None:
            browser.quit()
        if options.folder is None:
            run(place, "nnictl", "stop", "--all")
            wait_until(lambda: not place.processes())
            shutil.rmtree(folder)


def workplace_of(folder: Path, *, there: bool) -> Workplace:
    """Make the home folder of the run, or take one that a run has left."""
    if there:
        with tempfile.TemporaryDirectory() as nothing:
            place = Workplace(folder, Path(nothing))
        place.port = int((folder / "port").read_text())
    else:
        place = Workplace(folder)
        if (cache_folder() / "tables").is_dir():
            shutil.copytree(cache_folder() / "tables", folder / "cache" / "tables")
    place.environment.pop(MEASURE_ONCE)
    place.environment["PYTHONPATH"] = str(REPOSITORY)
    return place


def run_experiment(place: Workplace, epochs: int, retrain_epochs: int) -> None:
    """Run the quickstart, keep its manager, and bring both networks to files."""
    place.change("recipe.yml", {"epochs": epochs})
    run(place, "nni-proxyless", "run", "experiments/quickstart/config.yml", "--port", str(place.port), "--keep")
    for target in TARGETS:
        folder = f"results/quickstart/{target}"
        run(place, "nni-proxyless", "retrain", folder, f"epochs={retrain_epochs}", "--inherit")
        run(place, "nni-proxyless", "export", f"{folder}/retrained", "--format", "onnx", "int8")


def run(place: Workplace, *command: str) -> None:
    """Run a command in the home folder; what it prints is shown.

    Raises:
        SystemExit: The command failed.
    """
    done = subprocess.run([str(BIN / command[0]), *command[1:]], cwd=place.folder, env=place.environment, check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)} ended with {done.returncode}")


def open_browser() -> Any:
    options = webdriver.ChromeOptions()
    options.binary_location = shutil.which("chromium")
    for argument in (
        "--headless=new", "--no-sandbox", "--disable-dev-shm-usage", f"--window-size={WIDTH},{HEIGHT}",
        "--host-resolver-rules=MAP * ~NOTFOUND , EXCLUDE localhost",
    ):  # fmt: skip
        options.add_argument(argument)
    browser = webdriver.Chrome(options=options, service=Service(shutil.which("chromedriver")))
    browser.implicitly_wait(60)
    return browser


def save(browser: Any, name: str, box: tuple[float, float, float, float] | None = None) -> None:
    """Save what the browser shows, or a part of it: left, top, right and bottom in pixels."""
    time.sleep(2)  # until animations have ended
    picture = Image.open(io.BytesIO(browser.get_screenshot_as_png())).convert("RGB")
    picture = picture if box is None else picture.crop(tuple(round(edge) for edge in box))
    path = IMAGES / f"{name}.png"
    picture.save(path, optimize=True)
    print(f"{path.relative_to(REPOSITORY)}: {picture.width} x {picture.height}, {path.stat().st_size // 1024} KiB")


def take_web_ui(browser: Any, place: Workplace) -> None:
    browser.get(f"http://localhost:{place.port}/detail")
    browser.find_element("css selector", ".ms-DetailsRow")
    browser.execute_script(
        "const style = document.createElement('style'); style.textContent = arguments[0]; document.head.append(style)",
        STYLE,
    )
    (metric,) = [e for e in browser.find_elements("css selector", ".ms-Dropdown") if e.text.startswith("default")]
    metric.click()
    pick(browser, ".ms-Dropdown-item", "latency_ms")
    save(browser, "web_ui_latency")
    press(browser, "Add/Remove columns")
    pick(browser, ".ms-Checkbox", "latency_ms (metric)")
    press(browser, "Save")
    box = browser.execute_script(
        "const box = document.querySelector('.detailTable').getBoundingClientRect();"
        "return [box.left, box.top, box.right, box.bottom]"
    )
    save(browser, "web_ui_trials", box)
    press(browser, "Hyper-parameter")
    save(browser, "web_ui_parameters")
    press(browser, "Intermediate result")
    save(browser, "web_ui_curves")


def take_tensorboard(browser: Any, place: Workplace) -> None:
    import requests

    trials = ",".join(job["trialJobId"] for job in place.api("trial-jobs"))
    answer = requests.post(f"http://localhost:{place.port}/api/v1/nni/tensorboard", json={"trials": trials}, timeout=60)
    address = f"http://localhost:{answer.json()['port']}"
    wait_until(lambda: len(requests.get(f"{address}/data/plugin/scalars/tags", timeout=5).json()) == len(TARGETS))
    browser.get(f"{address}/#timeseries")
    browser.find_element("css selector", "scalar-card")
    press(browser, "Settings")  # which closes them
    time.sleep(5)
    save(browser, "tensorboard")


def take_report(browser: Any, place: Workplace, results: Path | None) -> None:
    """Save parts of the report. Its commands name a folder in the home folder, so no path of this machine is shown."""
    shown = Path("results/quickstart")
    if results is not None:
        shown = Path("other") / results.resolve().name
        shutil.copytree(results, place.folder / shown, dirs_exist_ok=True)
    run(place, "nni-proxyless", "report", str(shown), "--out", "report")
    size = {"width": 1280, "height": 6000, "deviceScaleFactor": 1, "mobile": False}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    browser.get((place.folder / "report" / "report.html").as_uri())
    for first, last, name in PARTS:
        box = browser.execute_script(
            "const [start, end] = arguments[0].map(e => document.querySelector(e).getBoundingClientRect());"
            "return [start.left, start.top, start.right, end.bottom]",
            [first, last],
        )
        save(browser, name, (box[0] - 8, max(0, box[1] - 8), box[2] + 8, box[3] + 8))


if __name__ == "__main__":
    main()
