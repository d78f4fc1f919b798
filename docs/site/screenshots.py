"""Take the pictures of NNI's web UI, TensorBoard and the report in `docs/images`.

    python docs/site/screenshots.py

It runs the quickstart through NNI's manager in a temporary home folder, and writes the report of a folder of results,
by default the recorded quickstart in `tests/recorded`. Then it opens the pages in Debian's Chromium (packages chromium
and chromium-driver) without a network.
"""

from __future__ import annotations

import argparse
import io
import shutil
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

from tests.helpers import Workplace, wait_until  # noqa: E402
from tests.system.test_quickstart import pick, press  # noqa: E402

IMAGES = REPOSITORY / "docs" / "images"
RECORDED = REPOSITORY / "tests" / "recorded" / "quickstart"
KEPT_TABLES = {"cpu_torch": "pytorch.yml", "cpu_onnxruntime": "onnxruntime.yml"}
TARGETS = tuple(KEPT_TABLES)
HIDE_ICONS = "i[data-icon-name] { visibility: hidden }"
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
    parser.add_argument(
        "--kept-tables",
        action="store_true",
        help="use the tutorial's latency tables, if other programs use the machine",
    )
    parser.add_argument("--results", type=Path, default=RECORDED, help="results whose report is shown")
    options = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="screenshots-"))
    place = Workplace(folder)
    place.environment["PYTHONPATH"] = str(REPOSITORY)
    browser = open_browser()
    try:
        run_experiment(place, options.epochs, kept_tables=options.kept_tables)
        take_web_ui(browser, place)
        take_tensorboard(browser, place)
        take_report(browser, place, options.results.resolve())
    finally:
        browser.quit()
        place.command("nnictl", "stop", "--all")
        wait_until(lambda: not place.processes())
        shutil.rmtree(folder)


def run_experiment(place: Workplace, epochs: int, *, kept_tables: bool) -> None:
    """Run the quickstart, and keep its manager."""
    changes: dict[str, Any] = {"epochs": epochs}
    if kept_tables:
        tables = {target: REPOSITORY / "docs" / "tutorial_tables" / name for target, name in KEPT_TABLES.items()}
        changes["targets"] = {target: {"table": str(path)} for target, path in tables.items()}
    place.change("recipe.yml", changes)
    run(place, "run", "experiments/quickstart/config.yml", "--port", str(place.port), "--keep")


def run(place: Workplace, *command: str) -> None:
    done = place.command("nni-proxyless", *command)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)}\n{done.stdout}\n{done.stderr}")
    print(done.stdout)


def open_browser() -> Any:
    options = webdriver.ChromeOptions()
    options.binary_location = shutil.which("chromium")
    for argument in (
        "--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--window-size=1280,900",
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
    # NNI's UI loads the font of its icons from a network, without which they are empty boxes.
    browser.execute_script(
        "const style = document.createElement('style'); style.textContent = arguments[0]; document.head.append(style)",
        HIDE_ICONS,
    )
    (metric,) = [e for e in browser.find_elements("css selector", ".ms-Dropdown") if e.text.startswith("default")]
    metric.click()
    pick(browser, ".ms-Dropdown-item", "latency_ms")
    save(browser, "web_ui_latency")
    press(browser, "Add/Remove columns")
    pick(browser, ".ms-Checkbox", "latency_ms (metric)")
    press(browser, "Save")
    rows = browser.find_elements("css selector", ".ms-DetailsRow")
    browser.execute_script("arguments[0].scrollIntoView({block: 'end'})", rows[-1])
    save(browser, "web_ui_trials")
    browser.execute_script("window.scrollTo(0, 0)")
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
    time.sleep(5)
    save(browser, "tensorboard")


def take_report(browser: Any, place: Workplace, results: Path) -> None:
    """Save parts of the report. Its commands name a copy of the results, so that no path of this machine is shown."""
    copied = Path("results") / results.name
    shutil.copytree(results, place.folder / copied, dirs_exist_ok=True)
    run(place, "report", str(copied), "--out", "report")
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
