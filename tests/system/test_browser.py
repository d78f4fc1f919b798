"""A finished experiment as a person sees it: NNI's web UI and the report, in a real browser without a network.

Needs Debian's packages chromium and chromium-driver. `NNI_PROXYLESS_SCREENSHOTS` names a folder to keep pictures in.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from nni_proxyless import Architecture
from tests.helpers import Workplace, read_csv, wait_until

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workplace]:
    """The quickstart in short form within a budget, its manager still up."""
    place = Workplace(tmp_path_factory.mktemp("finished"))
    place.change(
        "recipe.yml",
        {
            "epochs": 8,
            "warmup_epochs": 4,
            "threads": 1,
            "objective": "budget",
            "budget_fraction": 0.5,
            "arch_learning_rate": None,
        },
    )
    done = place.command(
        "nni-proxyless", "run", "experiments/quickstart/config.yml", "--port", str(place.port), "--keep"
    )
    assert done.returncode == 0, done.stderr
    yield place
    place.command("nnictl", "stop", "--all")
    for process in place.processes():
        process.kill()


@pytest.fixture
def browser() -> Iterator[Any]:
    binary, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if binary is None or driver is None:
        pytest.skip("needs Debian's packages chromium and chromium-driver")
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    options.binary_location = binary
    for argument in (
        "--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--window-size=1280,1300",
        "--host-resolver-rules=MAP * ~NOTFOUND , EXCLUDE localhost",
    ):  # fmt: skip
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    found = webdriver.Chrome(options=options, service=Service(driver))
    found.implicitly_wait(15)
    yield found
    found.quit()


def keep_picture(browser: Any, name: str) -> None:
    folder = os.environ.get("NNI_PROXYLESS_SCREENSHOTS")
    if folder:
        time.sleep(1)  # until what is drawn moves no more
        browser.save_screenshot(str(Path(folder) / f"{name}.png"))


def press(browser: Any, text: str) -> None:
    browser.find_element("xpath", f"//button[contains(normalize-space(.), '{text}')]").click()


def pick(browser: Any, kind: str, text: str) -> None:
    """Press the item of a menu or the check box that is called so."""
    items = wait_until(lambda: [e for e in browser.find_elements("css selector", kind) if e.text.strip() == text])
    items[0].click()


def test_the_web_ui_shows_latency_parameters_curves_and_log(finished: Workplace, browser: Any) -> None:
    jobs = finished.api("trial-jobs")
    finals = {job["trialJobId"]: finished.metrics(job["trialJobId"])[1][0] for job in jobs}
    browser.get(f"http://localhost:{finished.port}/detail")
    browser.find_element("css selector", ".ms-DetailsRow")

    # The drop-down above the graph offers every number; the graph draws the chosen one.
    (metric,) = [e for e in browser.find_elements("css selector", ".ms-Dropdown") if e.text.startswith("default")]
    metric.click()
    wait_until(
        lambda: (
            {e.text for e in browser.find_elements("css selector", ".ms-Dropdown-item")}
            == set(finals[jobs[0]["trialJobId"]])
        ),
        seconds=20,
    )
    pick(browser, ".ms-Dropdown-item", "latency_ms")
    wait_until(
        lambda: any(e.text.startswith("latency_ms") for e in browser.find_elements("css selector", ".ms-Dropdown"))
    )
    keep_picture(browser, "web_ui_latency")

    # A column for latency holds what the trial has reported.
    press(browser, "Add/Remove columns")
    pick(browser, ".ms-Checkbox", "latency_ms (metric)")
    press(browser, "Save")
    titles = [e.text for e in browser.find_elements("css selector", ".ms-DetailsHeader-cellTitle")]
    wait_until(
        lambda: (
            "latency_ms (metric)"
            in [e.text for e in browser.find_elements("css selector", ".ms-DetailsHeader-cellTitle")]
        )
    )
    rows = [e.text.split("\n") for e in browser.find_elements("css selector", ".ms-DetailsRow")]
    assert len(rows) == len(jobs), titles
    for job, row in zip(jobs, rows, strict=True):
        assert "SUCCEEDED" in row
        assert job["trialJobId"] in row
        shown = [float(cell) for cell in row if cell.replace(".", "", 1).isdigit() and "." in cell]
        assert finals[job["trialJobId"]]["latency_ms"] in shown
    keep_picture(browser, "web_ui_trials")

    press(browser, "Hyper-parameter")
    wait_until(
        lambda: (
            {"target", "cpu_torch", "cpu_onnxruntime", "latency_ms"}
            <= {e.text for e in browser.find_elements("css selector", "svg text")}
        )
    )
    keep_picture(browser, "web_ui_parameters")
    press(browser, "Intermediate result")
    (canvas,) = wait_until(lambda: browser.find_elements("css selector", "canvas"))
    assert canvas.size["width"] > 300
    keep_picture(browser, "web_ui_curves")

    # The log of a trial, as the UI's link gives it.
    log = finished.api_text(f"trial-file/{jobs[0]['trialJobId']}/trial.stderr")
    assert "epoch 8/8: accuracy" in log
    assert "Traceback" not in log


def test_from_the_search_to_the_device_and_the_report(finished: Workplace, browser: Any) -> None:
    """run, retrain, export, report, by commands alone; the page opens without a network and without an error."""
    targets = ("cpu_torch", "cpu_onnxruntime")
    for target in targets:
        folder = f"results/quickstart/{target}"
        found = Architecture.load(finished.folder / folder / "architecture.json")
        assert found.predicted_latency_ms is not None
        assert found.budget_ms is not None
        assert found.predicted_latency_ms <= found.budget_ms
        done = finished.command("nni-proxyless", "retrain", folder, "epochs=12", "warmup_epochs=2", "--inherit")
        assert done.returncode == 0, done.stderr
        assert "on 359 held-out images" in done.stdout
        done = finished.command(
            "nni-proxyless", "export", f"{folder}/retrained", "--format", "onnx", "int8", "state_dict"
        )
        assert done.returncode == 0, done.stderr
        assert "model.onnx: logits differ by" in done.stdout
        assert "(predicted " in done.stdout
    baseline = ("mobilenet_v2_0.5", "space=mobilenetv2_digits", "data=digits", "epochs=4", "warmup_epochs=1")
    done = finished.command("nni-proxyless", "retrain", *baseline, "--output", "results/quickstart/baselines/half")
    assert done.returncode == 0, done.stderr

    done = finished.command("nni-proxyless", "report", "results/quickstart", "--out", "report")
    assert done.returncode == 0, done.stderr
    points = read_csv(finished.folder / "report" / "accuracy_latency.csv")
    kinds = {(row["target"], row["kind"], row["trained"]) for row in points}
    assert kinds == {
        (target, kind, trained)
        for target in targets
        for kind, trained in (("proxyless", "False"), ("proxyless", "True"), ("mobilenet_v2_0.5", "True"))
    }
    experiment = finished.api("experiment")["id"]
    done = finished.command("nni-proxyless", "report", experiment, "--out", "by_id")
    assert done.returncode == 0, done.stderr

    for page in ("report/report.html", "by_id/report.html"):
        browser.get((finished.folder / page).as_uri())
        assert browser.get_log("browser") == []
        pictures = browser.find_elements("tag name", "img")
        assert len(pictures) >= 4
        for picture in pictures:
            assert int(picture.get_property("naturalWidth")) >= 600
    browser.get((finished.folder / "report/report.html").as_uri())
    headings = [e.text for e in browser.find_elements("tag name", "h2")]
    assert headings[0] == "Architectures"
    assert len(headings) == 6
    keep_picture(browser, "report")
