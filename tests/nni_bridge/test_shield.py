"""The script that keeps NNI's manager to this machine, in NNI's own Node.js, and the variables that load it."""

from __future__ import annotations

import http.client
import json
import os
import re
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from nni_proxyless.errors import InputError
from nni_proxyless.nni_bridge.shield import HOST, SCRIPT, addresses, check_host, is_loopback, shield, shielded

# Like NNI's manager, it leaves out the address, in each of the ways in which NNI and its packages do. The last server
# names its address, so it is left alone.
SERVERS = """
const http = require('http'), net = require('net'), { spawn } = require('child_process');
const answer = (request, response) => response.end('answered');
const made = [];
const add = (...words) => new Promise((resolve) => {
  const server = http.createServer(answer);
  server.on('upgrade', (request, socket) => socket.end('HTTP/1.1 101 Switching Protocols\\r\\n\\r\\n'));
  made.push(server);
  server.on('listening', resolve);
  server.listen(...words);
});
(async () => {
  await add(0);
  await add(0, undefined, undefined, () => {});
  await add({ port: 0 });
  await add('0');
  await add(0, '127.0.0.3');
  const board = spawn('tensorboard', ['--bind_all --logdir_spec=a:/b', '--port=6006'], { shell: true });
  let said = '';
  board.stdout.on('data', (data) => { said += data; });
  board.on('close', () => console.log(JSON.stringify({
    servers: made.map((server) => server.address()), board: said.trim(),
    left: [process.env.NODE_OPTIONS, process.env.NNI_PROXYLESS_WITH_PARENT],
  })));
})();
"""


def node() -> str:
    import nni_node

    return str(Path(next(iter(nni_node.__path__))) / "node")


class Manager:
    """Stands in for NNI's manager: the servers above, in NNI's Node.js, under the name of its program."""

    def __init__(self, folder: Path, environment: dict[str, str], first: str = "") -> None:
        program = folder / "nni node's folder" / "nni_node" / "main.js"
        program.parent.mkdir(parents=True)
        program.write_text(first + SERVERS)
        self.process = subprocess.Popen(
            [node(), str(program), "--python-interpreter", "/bin/echo"],
            stdout=subprocess.PIPE, env=environment, text=True,
        )  # fmt: skip
        assert self.process.stdout is not None
        self.said: dict[str, Any] = json.loads(self.process.stdout.readline())

    def ask(self, address: str, number: int = 0, **headers: str) -> tuple[int, str]:
        connection = http.client.HTTPConnection(address, self.said["servers"][number]["port"], timeout=20)
        try:
            connection.request("GET", "/", headers={name.replace("_", "-"): value for name, value in headers.items()})
            answer = connection.getresponse()
            return answer.status, answer.read().decode()
        finally:
            connection.close()

    def stop(self) -> None:
        assert self.process.stdout is not None
        self.process.kill()
        self.process.wait()
        self.process.stdout.close()


@pytest.fixture(scope="module")
def on_loopback(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Manager]:
    made = Manager(tmp_path_factory.mktemp("loopback"), shielded({**os.environ, "NODE_OPTIONS": "--no-deprecation"}))
    yield made
    made.stop()


def test_servers_without_an_address_listen_on_this_machine_only(on_loopback: Manager) -> None:
    assert [server["address"] for server in on_loopback.said["servers"]] == [*["127.0.0.1"] * 4, "127.0.0.3"]
    assert addresses(on_loopback.process.pid) == {"127.0.0.1", "127.0.0.3"}
    for number in range(4):
        assert on_loopback.ask("127.0.0.1", number) == (200, "answered")
        with pytest.raises(ConnectionRefusedError):  # a server on all interfaces would answer here
            on_loopback.ask("127.0.0.2", number)


def test_tensorboard_gets_the_address_and_ends_with_the_manager(on_loopback: Manager) -> None:
    words = on_loopback.said["board"].split()
    assert words == ["-m", "nni_proxyless.nni_bridge.board", "--host=127.0.0.1", "--logdir_spec=a:/b", "--port=6006"]


def test_what_the_manager_starts_gets_the_environment_of_before(on_loopback: Manager) -> None:
    assert on_loopback.said["left"] == ["--no-deprecation", None]


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Host": "localhost:{port}"}, 200),
        ({"Host": "[::1]:{port}"}, 200),
        ({"Host": "192.0.2.7:{port}"}, 200),  # a page cannot make a browser send a number that is not its own
        ({"Host": "localhost:9000", "Origin": "http://localhost:9000"}, 200),  # an SSH tunnel from another port
        ({"Host": "evil.example:{port}"}, 403),  # DNS rebinding
        ({"Host": "localhost:{port}", "Origin": "https://evil.example"}, 403),
        ({"Host": "localhost:{port}", "Origin": "null"}, 403),
        ({"Host": "localhost:{port}", "Origin": "http://localhost:9000"}, 403),
        ({"Host": "evil.example", "Upgrade": "websocket", "Connection": "Upgrade"}, 403),
        ({"Host": "localhost", "Origin": "http://evil.example", "Upgrade": "websocket", "Connection": "Upgrade"}, 403),
        ({"Host": "localhost", "Upgrade": "websocket", "Connection": "Upgrade"}, 101),
    ],
)
def test_pages_of_other_origins_are_refused(headers: dict[str, str], status: int, on_loopback: Manager) -> None:
    port = on_loopback.said["servers"][0]["port"]
    found = on_loopback.ask("127.0.0.1", **{name: value.format(port=port) for name, value in headers.items()})
    assert found[0] == status
    assert found[1].startswith({200: "answered", 403: "refused: ", 101: ""}[status])


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells the user of a connection")
def test_other_users_of_this_machine_are_refused(on_loopback: Manager, tmp_path: Path) -> None:
    """Root connects as nobody. Another user, who cannot do that, asks a manager that takes itself for nobody's."""
    nobody, refused = 65534, (403, "refused: it comes from another user of this machine\n")
    if os.geteuid() == 0:
        os.seteuid(nobody)
        try:
            assert on_loopback.ask("127.0.0.1") == refused
        finally:
            os.seteuid(0)
        assert on_loopback.ask("127.0.0.1") == (200, "answered")
        return
    made = Manager(tmp_path, shielded(os.environ), f"process.getuid = () => {nobody};")
    try:
        assert made.ask("127.0.0.1") == refused
    finally:
        made.stop()


def test_another_address_is_served_as_well(tmp_path: Path) -> None:
    made = Manager(tmp_path, shielded(os.environ, "127.0.0.2"))
    try:
        assert addresses(made.process.pid) == {"127.0.0.1", "127.0.0.2", "127.0.0.3"}
        for number in range(4):
            assert made.ask("127.0.0.1", number) == made.ask("127.0.0.2", number) == (200, "answered")
        with pytest.raises(ConnectionRefusedError):
            made.ask("127.0.0.4")
        assert "--host=127.0.0.2" in made.said["board"]
    finally:
        made.stop()


def test_an_open_port_is_served_under_any_name_but_not_to_foreign_pages(tmp_path: Path) -> None:
    """Other machines know this one by its full name, or by that of a proxy."""
    made = Manager(tmp_path, shielded(os.environ, "0.0.0.0"))
    try:
        assert addresses(made.process.pid) == {"0.0.0.0", "127.0.0.3"}
        port = made.said["servers"][0]["port"]
        for host in (f"{socket.gethostname()}.lab.example:{port}", f"proxy.example:{port}", "192.0.2.7:80"):
            assert made.ask("127.0.0.1", Host=host) == (200, "answered")
            assert made.ask("127.0.0.1", Host=host, Origin=f"http://{host}") == (200, "answered")
            for origin in ("https://evil.example", "null", "http://192.0.2.8"):
                assert made.ask("127.0.0.1", Host=host, Origin=origin)[0] == 403
    finally:
        made.stop()


def test_the_manager_stops_when_the_process_that_started_it_is_killed(tmp_path: Path) -> None:
    program = tmp_path / "nni_node" / "main.js"
    program.parent.mkdir()
    program.write_text("setInterval(() => {}, 1000); console.log(process.pid);")
    code = 'NNI_PROXYLESS_WITH_PARENT=$$ "$0" "$1" & wait'
    with subprocess.Popen(
        ["/bin/sh", "-c", code, node(), str(program)], stdout=subprocess.PIPE, text=True, env=shielded(os.environ)
    ) as parent:
        assert parent.stdout is not None
        manager = psutil.Process(int(parent.stdout.readline()))
        with pytest.raises(psutil.TimeoutExpired):  # it runs as long as its parent does
            manager.wait(1.2)
        parent.kill()
    psutil.wait_procs([manager], timeout=60)
    assert not manager.is_running() or manager.status() == psutil.STATUS_ZOMBIE


def test_other_programs_of_node_are_left_alone() -> None:
    """A user may export NODE_OPTIONS."""
    code = "const s = require('http').createServer().listen(0, () => { console.log(s.address().address); s.close(); })"
    done = subprocess.run([node(), "-e", code], capture_output=True, text=True, check=True, env=shielded(os.environ))
    assert done.stdout.strip() in ("::", "0.0.0.0")


def test_the_environment_is_as_before_after_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NODE_OPTIONS", "--no-warnings")
    before = dict(os.environ)
    with shield("127.0.0.1", with_parent=True):
        assert os.environ["NODE_OPTIONS"].startswith("--no-warnings --require=")
        assert os.environ["NNI_PROXYLESS_WITH_PARENT"] == str(os.getpid())
    assert dict(os.environ) == before


def test_the_address_must_be_one_of_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(HOST, raising=False)
    assert [check_host(text) for text in (None, "127.0.0.2", "0.0.0.0")] == ["127.0.0.1", "127.0.0.2", "0.0.0.0"]
    for text in ("192.0.2.254", "somewhere", "", "127.0.0.1:80", "300.1.1.1", "x" * 10_000):
        with pytest.raises(InputError, match="--host must be an IP address of this machine") as raised:
            check_host(text)
        assert len(str(raised.value)) < 300
    monkeypatch.setenv(HOST, "elsewhere")
    with pytest.raises(InputError, match=f"{HOST} must be an IP address"):
        check_host(None)
    assert [is_loopback(text) for text in ("127.0.0.9", "::1", "0.0.0.0", "::", "192.0.2.1")] == [
        True,
        True,
        *[False] * 3,
    ]


# NNI's timer and tuner command, and a tuner that ends after the timer without having connected.
SLOW_TUNER = """
const { spawn } = require('child_process');
const tuner = spawn('sleep 1; echo', ['-m', 'nni', '--exp_params', 'e30='], { shell: true, stdio: 'ignore' });
const connected = false;
setTimeout(() => {
  if (!connected) {
    const msg = 'Tuner did not connect in 10 seconds. Please check tuner (dispatcher) log.';
    console.log(JSON.stringify({ code: tuner.exitCode }));
  }
}, 10);
setTimeout(() => console.log('another timer'), 20);
"""


@pytest.mark.parametrize(
    ("loaded", "lines"), [(True, ["another timer", '{"code":0}']), (False, ['{"code":null}', "another timer"])]
)
def test_the_manager_waits_for_a_tuner_that_is_starting(loaded: bool, lines: list[str], tmp_path: Path) -> None:
    (tmp_path / "main.js").write_text(SLOW_TUNER)
    words = ["--require", str(SCRIPT.with_name("patience.cjs"))] if loaded else []
    done = subprocess.run(
        [node(), *words, str(tmp_path / "main.js")], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.split("\n")[:-1] == lines


def test_nnis_manager_has_the_timer_and_the_command_that_are_replaced() -> None:
    """The texts by which patience.cjs knows them are those of the NNI that is installed."""
    source = Path(node()).parent
    channel = (source / "core" / "tuner_command_channel.js").read_text()
    assert re.search(r"\bsetTimeout\(\(\) => \{[^}]*Tuner did not connect", channel)
    assert "'--exp_params'" in (source / "common" / "utils.js").read_text()
    assert "patience.cjs" in SCRIPT.read_text()
