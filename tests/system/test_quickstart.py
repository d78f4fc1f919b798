"""The quickstart in a short form: its files and metrics, NNI's web UI, the commands after it, and the report.

The browser has no access to the internet. Its tests need Debian's packages chromium and chromium-driver.
`docs/site/screenshots.py` takes pictures of the same pages.
"""

from __future__ import annotations

import re
import shutil
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import requests

from nni_proxyless import Architecture, LatencyTable
from tests.helpers import Workplace, read_csv, wait_until

# All tests share one experiment, so they run in one worker.
pytestmark = [pytest.mark.slow(200), pytest.mark.xdist_group("quickstart")]
EPOCHS, WARMUP, FINALISTS = 8, 3, 8
KEYS = {"default", "latency_ms", "expected_latency_ms", "expected_over_budget", "entropy", "train_loss"}


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workplace]:
    """Workplace with a finished, shortened quickstart. Its manager is still running until the last test has ended."""
    place = Workplace(tmp_path_factory.mktemp("finished"))
    place.start_trials_warm()
    short = {"epochs": EPOCHS, "warmup_epochs": WARMUP, "batch_size": 64, "threads": 1, "finalists": FINALISTS}
    place.change("recipe.yml", short)
    done = place.command(
        "nni-proxyless", "run", "experiments/quickstart/config.yml", "--port", str(place.port), "--keep"
    )
    assert done.returncode == 0, done.stderr
    for name in ("stdout", "stderr"):
        (place.folder / f"run.{name}").write_text(getattr(done, name))
    yield place
    assert place.command("nnictl", "stop", "--all").returncode == 0
    wait_until(lambda: not place.processes())


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


def press(browser: Any, text: str) -> None:
    browser.find_element("xpath", f"//button[contains(normalize-space(.), '{text}')]").click()


def pick(browser: Any, kind: str, text: str) -> None:
    """Click the menu item or check box with a given text."""
    items = wait_until(lambda: [e for e in browser.find_elements("css selector", kind) if e.text.strip() == text])
    items[0].click()


def test_quickstart_in_short_form(finished: Workplace) -> None:
    """The manager searches for both targets: metrics, files, summary, TensorBoard. At the end, no process is left."""
    log = (finished.folder / "run.stderr").read_text()
    assert f"NNI web UI: http://localhost:{finished.port}" in log
    assert f"trial 0 result {EPOCHS}: accuracy" in log
    assert f"trial 1 result {EPOCHS - WARMUP}: accuracy" in log  # the trial starts from the warm-up of the first trial

    rows = read_csv(finished.folder / "results" / "quickstart" / "summary.csv")
    assert [row["target"] for row in rows] == ["cpu_torch", "cpu_onnxruntime"]
    for row in rows:
        assert float(row["accuracy"]) >= 0.9
        assert Path(row["architecture"]) == Path("results") / "quickstart" / row["target"] / "architecture.json"
        assert row["architecture"] in (finished.folder / "run.stdout").read_text()
        folder = (finished.folder / row["architecture"]).parent
        architecture = Architecture.load(folder / "architecture.json")
        assert architecture.target == row["target"]
        assert architecture.trial_parameters == {"target": row["target"]}
        assert architecture.measured_latency_ms is not None
        assert architecture.measured_latency_ms > 0
        table = LatencyTable.load(folder / "latency_table.yml")
        predicted = table.costs(architecture.require_spec()).of(architecture.choices)
        assert architecture.predicted_latency_ms == pytest.approx(predicted)
        assert int(row["parameters"]) == sum(p.numel() for p in architecture.build().parameters())
        history = read_csv(folder / "history.csv")
        # The search for the second target starts from the warm-up of the first search.
        assert [int(r["epoch"]) for r in history] == list(range(1 if row is rows[0] else WARMUP + 1, EPOCHS + 1))
        assert float(history[-1]["default"]) == architecture.metrics["default"]

    jobs = finished.api("trial-jobs")
    assert [job["status"] for job in jobs] == ["SUCCEEDED", "SUCCEEDED"]
    experiment = finished.api("experiment")["id"]
    last = (finished.folder / "run.stdout").read_text().splitlines()[-2:]
    assert last == [
        f"results: {finished.folder / 'results' / 'quickstart'}",
        "next: nni-proxyless retrain results/quickstart/cpu_torch",
    ]
    for job, epochs in zip(jobs, (EPOCHS, EPOCHS - WARMUP), strict=True):
        intermediate, final = finished.metrics(job["trialJobId"])
        assert len(intermediate) == epochs
        assert len(final) == 1
        assert all(set(record) == KEYS for record in intermediate + final)
        assert all(isinstance(value, float) for record in intermediate + final for value in record.values())
        assert final == intermediate[-1:]
        seen = (
            finished.folder / "nni-experiments" / experiment / "trials" / job["trialJobId"] / "output" / "tensorboard"
        )
        assert any(path.name.startswith("events.out.tfevents") for path in seen.iterdir())
        written = finished.folder / "nni-experiments" / experiment / "environments/local-env/trials" / job["trialJobId"]
        assert {"architecture.json", "history.csv", "latency_table.yml", "checkpoint.ckpt"} <= {
            p.name for p in written.iterdir()
        }

    # The TensorBoard button of the web UI sends the same request.
    answer = requests.post(
        f"http://localhost:{finished.port}/api/v1/nni/tensorboard",
        json={"trials": ",".join(job["trialJobId"] for job in jobs)},
        timeout=60,
    )
    assert answer.ok, answer.text
    board = answer.json()
    tags = wait_until(
        lambda: requests.get(f"http://localhost:{board['port']}/data/plugin/scalars/tags", timeout=5).json()
    )
    assert all("val/accuracy" in run and "search/latency_ms" in run for run in tags.values())
    assert len(tags) == 2

    # The manager and TensorBoard can be reached from this machine only. On Linux, 127.0.0.2 answers for a server on all
    # interfaces, even where there is no network.
    assert "it listens on 127.0.0.1 only" in log
    found = {one.address for listed in psutil.net_if_addrs().values() for one in listed if one.family == socket.AF_INET}
    for address in {"127.0.0.2", *found} - {"127.0.0.1"}:
        for port in (finished.port, int(board["port"])):
            with pytest.raises(ConnectionRefusedError):
                socket.create_connection((address, port), timeout=20)
    evil = {"Host": f"evil.example:{finished.port}"}  # a page that resolves its own name to 127.0.0.1
    assert (
        requests.get(f"http://localhost:{finished.port}/api/v1/nni/version", headers=evil, timeout=20).status_code
        == 403
    )

    # How many layers each target's network keeps depends on latencies that were measured while other tests ran, so
    # only the column's form is checked here.
    assert all(re.fullmatch(r"[3-8] of 8", row["layers"]) for row in rows), rows
    for row in rows:
        assert float(row["predicted_latency_ms"]) <= float(row["budget_ms"])
        compared = read_csv((finished.folder / row["architecture"]).parent / "finalists.csv")
        assert len(compared) == FINALISTS


def test_the_web_ui_shows_latency_parameters_curves_and_log(finished: Workplace, browser: Any) -> None:
    jobs = finished.api("trial-jobs")
    finals = {job["trialJobId"]: finished.metrics(job["trialJobId"])[1][0] for job in jobs}
    browser.get(f"http://localhost:{finished.port}/detail")
    browser.find_element("css selector", ".ms-DetailsRow")

    # The drop-down menu above the graph offers all metrics, and the graph shows the selected one.
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

    # The column for latency shows the values that the trials have reported.
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

    press(browser, "Hyper-parameter")
    wait_until(
        lambda: (
            {"target", "cpu_torch", "cpu_onnxruntime", "latency_ms"}
            <= {e.text for e in browser.find_elements("css selector", "svg text")}
        )
    )
    press(browser, "Intermediate result")
    (canvas,) = wait_until(lambda: browser.find_elements("css selector", "canvas"))
    assert canvas.size["width"] > 300

    # The link in the UI opens the log of a trial.
    log = finished.api_text(f"trial-file/{jobs[0]['trialJobId']}/trial.stderr")
    assert f"epoch {EPOCHS}/{EPOCHS}: accuracy" in log
    assert "Traceback" not in log


def test_from_the_search_to_the_device_and_the_report(finished: Workplace, browser: Any) -> None:
    """Run, retrain, export and report by commands. The report opens without internet access and without errors."""
    targets = ("cpu_torch", "cpu_onnxruntime")
    for target, formats in zip(targets, (("onnx", "int8"), ("onnx",)), strict=True):
        folder = f"results/quickstart/{target}"
        found = Architecture.load(finished.folder / folder / "architecture.json")
        assert found.predicted_latency_ms is not None
        assert found.budget_ms is not None
        assert found.predicted_latency_ms <= found.budget_ms
        done = finished.command("nni-proxyless", "retrain", folder, "epochs=6", "warmup_epochs=2", "--inherit")
        assert done.returncode == 0, done.stderr
        assert "on 359 held-out images" in done.stdout
        done = finished.command("nni-proxyless", "export", f"{folder}/retrained", "--format", *formats)
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
        pictures = browser.find_elements("css selector", "figure svg")
        assert len(pictures) >= 8
        for picture in pictures:
            if picture.is_displayed():  # not those that are shown on demand
                assert picture.size["width"] >= 200
                assert picture.size["height"] >= 20
        for width in (390, 1200, 1920):
            size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 500}
            browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
            whole = "return document.documentElement.scrollWidth"
            assert browser.execute_script(whole) <= width, "the page never scrolls sideways"
        browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
        looks = []
        for scheme in ("light", "dark"):
            features = [{"name": "prefers-color-scheme", "value": scheme}]
            browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
            text = browser.find_element("css selector", "figure svg text")
            looks.append(
                (
                    text.value_of_css_property("fill"),
                    browser.find_element("tag name", "body").value_of_css_property("background-color"),
                )
            )
        assert looks[0][0] != looks[1][0], "texts of pictures follow the scheme"
        assert looks[0][1] != looks[1][1]
        browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})
    browser.get((finished.folder / "report/report.html").as_uri())
    headings = [e.text for e in browser.find_elements("tag name", "h2")]
    assert headings[0] == "Accuracy against latency"
    assert len(headings) == 6
    first = browser.find_elements("css selector", "body > *")[1]
    assert first.get_attribute("id") == "verdict"
    rows = [row.text for row in first.find_elements("css selector", "tbody")]
    assert [row.split()[0] for row in rows[:2]] == sorted(targets)
    assert "not trained yet" not in " ".join(rows)
