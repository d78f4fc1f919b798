"""NNI's launcher waits for a manager that starts slowly, and not for one that has ended."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
import requests
from nni.experiment import experiment, launcher, rest

from nni_proxyless.nni_bridge import answering
from nni_proxyless.nni_bridge.answering import end_process, wait_longer
from tests.helpers import free_port

# Answers like NNI's manager, but only after longer than NNI's launcher waits.
SLOW = """
import http.server, sys, time
time.sleep(6)
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200 if self.path == "/api/v1/nni/check-status" else 404)
        self.end_headers()
        self.wfile.write(b'{"status": "INITIALIZED"}')
    def log_message(self, *words): pass
http.server.HTTPServer(("localhost", int(sys.argv[1])), Handler).serve_forever()
"""


@pytest.fixture
def launched(monkeypatch: pytest.MonkeyPatch) -> None:
    for module, name in ((launcher, "_check_rest_server"), (experiment, "kill_command"), (rest, "request")):
        monkeypatch.setattr(module, name, getattr(module, name))  # put back afterwards
    monkeypatch.setattr(rest, "timeout", 0.3)
    wait_longer()


class Late(BaseHTTPRequestHandler):
    """A manager on a busy machine."""

    def do_GET(self) -> None:
        time.sleep(0.6)
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b'{"status": "RUNNING"}')

    def log_message(self, *words: object) -> None:
        return


def test_a_manager_on_a_busy_machine_may_answer_late(monkeypatch: pytest.MonkeyPatch, request: Any) -> None:
    server = HTTPServer(("localhost", 0), Late)
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    port = server.server_address[1]
    monkeypatch.setattr(rest, "timeout", 0.3)
    with pytest.raises(requests.Timeout):  # as NNI does after 20 seconds
        rest.get(port, "/check-status")
    request.getfixturevalue("launched")
    assert rest.get(port, "/check-status") == {"status": "RUNNING"}
    server.shutdown()
    server.server_close()


@pytest.mark.slow
def test_a_manager_that_starts_slowly_is_waited_for(launched: None, tmp_path: Path) -> None:
    program, port = tmp_path / "main.js", free_port()
    program.write_text(SLOW)
    manager = subprocess.Popen([sys.executable, str(program), str(port)])
    try:
        launcher._check_rest_server(port, url_prefix=None)
    finally:
        manager.kill()
        manager.wait()


def test_a_manager_that_has_ended_is_not(launched: None, tmp_path: Path) -> None:
    (tmp_path / "main.js").write_text("")
    manager = subprocess.Popen([sys.executable, str(tmp_path / "main.js")])
    manager.wait()
    with pytest.raises(Exception, match="refused"):
        launcher._check_rest_server(free_port(), url_prefix=None)


@pytest.mark.parametrize(("method", "runs", "asked"), [("get", True, 3), ("get", False, 1), ("put", True, 1)])
def test_a_manager_that_is_slow_to_answer_is_asked_again(
    method: str, runs: bool, asked: int, launched: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a busy machine it may take longer than NNI's client waits. A command is not sent twice."""
    times: list[str] = []

    def slow(*words: object, **_: object) -> requests.Response:
        times.append(str(words[0]))
        if len(times) < 3:
            raise requests.ReadTimeout("Read timed out. (read timeout=20)")
        response = requests.Response()
        response.status_code, response._content = 200, b'{"status": "RUNNING"}'
        return response

    monkeypatch.setattr("requests.request", slow)
    monkeypatch.setattr(answering, "_manager_runs", lambda: runs)
    wait_longer()  # a second time changes nothing
    if asked == 3:
        assert rest.get(8080, "/check-status") == {"status": "RUNNING"}
    else:
        with pytest.raises(requests.ReadTimeout):
            rest.request(method, 8080, "/check-status")
    assert times == [method] * asked


@pytest.mark.parametrize("code", ["", "import signal; signal.signal(15, signal.SIG_IGN); "])
def test_a_manager_is_ended_where_there_is_no_program_to_kill(
    code: str, launched: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A Debian without the package procps has none. `Experiment.stop` calls this function of NNI's."""
    monkeypatch.setenv("PATH", "/nowhere")
    started = [sys.executable, "-c", f"{code}print(flush=True); import time; time.sleep(300)"]
    manager = subprocess.Popen(started, stdout=subprocess.PIPE)
    assert manager.stdout is not None
    manager.stdout.readline()
    experiment.kill_command(manager.pid, 0.2 if code else 60)
    manager.stdout.close()
    assert manager.wait(20) in (0, -signal.SIGTERM, -signal.SIGKILL)
    end_process(manager.pid)  # it has ended
