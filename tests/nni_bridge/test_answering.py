"""NNI's launcher waits for a manager that starts slowly, and not for one that has ended."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
import requests
from nni.experiment import launcher, rest

from nni_proxyless.nni_bridge.answering import wait_longer
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
    monkeypatch.setattr(launcher, "_check_rest_server", launcher._check_rest_server)  # put back afterwards
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
