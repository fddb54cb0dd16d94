"""The page that is open while a run goes on."""

import http.client
import json
import random
import socket
import threading
import time
from http import HTTPStatus
from urllib.parse import urlsplit

import pytest
from report_runs import append, make_run, metrics, rollout

from rlsync.errors import ConfigError
from rlsync.report import command
from rlsync.report.live import LiveReport
from rlsync.report.run_reader import RunReader
from rlsync.report.server import answer, serving
from rlsync.telemetry.console import ConsoleReporter


@pytest.fixture
def folder(tmp_path):
    return make_run(tmp_path / "a", steps=2, samples=3, planned=4, complete=False)


@pytest.fixture
def live(folder):
    return LiveReport([RunReader(folder)])


def _ask(live, target):
    status, _, text = answer(live, target)
    return json.loads(text) if status is HTTPStatus.OK else status


def test_a_page_asks_for_what_is_new(folder, live):
    first = _ask(live, "/news?seen=")
    assert (first["complete"], first["core"]["live"], first["core"]["runs"][0]["steps"]) == (False, True, [1, 2])
    seen = f"/news?seen={first['tag'].replace('+', '%2B')}"
    assert _ask(live, seen) is HTTPStatus.NO_CONTENT
    append(folder / "metrics.jsonl", metrics(3, 4, random.Random(0)))
    append(folder / "rollouts.jsonl", rollout(3, 0, random.Random(0), response="new"))
    second = _ask(live, seen)
    assert second["core"]["runs"][0]["steps"] == [1, 2, 3]
    assert second["core"]["runs"][0]["rollouts"]["listed"] == 7
    assert _ask(live, "/rows?run=0&begin=6")["response"] == ["new"]
    assert _ask(live, "/rows?run=0&begin=7")["response"] == []
    assert [each["row"] for each in _ask(live, "/detail?run=0&row=6")["records"]] == [6]
    assert not live.complete
    (folder / "summary.json").write_text("{}")
    assert _ask(live, f"/news?seen={second['tag'].replace('+', '%2B')}")["complete"]
    assert live.complete
    assert live.end_seen


def test_a_run_that_was_cut_off_is_told(folder, live):
    before = _ask(live, "/news?seen=")["restarts"]
    (folder / "rollouts.jsonl").write_text("")
    after = _ask(live, "/news?seen=")
    assert (before, after["restarts"]) == (0, 1)
    assert after["core"]["runs"][0]["rollouts"]["listed"] == 0


@pytest.mark.parametrize(
    "target",
    ["/x", "/rows", "/rows?run=1&begin=0", "/rows?run=-1&begin=0", "/detail?run=0&row=99", "/detail?run=0&row=x"],
)
def test_what_does_not_exist_is_not_found(live, target):
    live.page()
    assert _ask(live, target) is HTTPStatus.NOT_FOUND


def _get(address, path, host=None):
    connection = http.client.HTTPConnection(urlsplit(address).netloc, timeout=30)
    connection.request("GET", path, headers={"Host": host} if host else {})
    found = connection.getresponse()
    text = found.read().decode()
    connection.close()
    return found.status, text


def test_the_server_answers_on_this_machine_only(live):
    with serving(live, 0) as address:
        assert address.startswith("http://127.0.0.1:")
        status, page = _get(address, "/")
        assert (status, "connect-src 'self'" in page) == (200, True)
        assert _get(address, "/", host="evil.example")[0] == 403
        assert _get(address, "/../etc/passwd")[0] == 404
        port = urlsplit(address).port
        with pytest.raises(ConfigError, match=f"--port={port} cannot be used"), serving(live, port):
            pass
    with pytest.raises(OSError), socket.create_connection(("127.0.0.1", port), timeout=5):  # noqa: PT011  # refused
        pass


class _Console(ConsoleReporter):
    def __init__(self):
        super().__init__()
        self.said = []

    def say(self, text):
        self.said.append(text)


def test_the_view_ends_with_the_run_and_writes_the_page(folder, monkeypatch):
    monkeypatch.setattr(command, "_EVERY_S", 0.02)
    console = _Console()
    thread = threading.Thread(target=command.report, args=([folder], None, console), kwargs={"live": True})
    thread.start()
    _wait(lambda: console.said)
    address = console.said[0].split()[0]
    assert _get(address, "/")[0] == 200
    (folder / "summary.json").write_text('{"seconds": 2}')
    time.sleep(0.2)
    assert thread.is_alive()  # the page has not been told the end yet
    assert json.loads(_get(address, "/news?seen=")[1])["complete"]
    thread.join(60)
    assert not thread.is_alive()
    assert (folder / "report.html").is_file()
    assert "report.html" in console.said[-1]


def test_ctrl_c_ends_the_view_without_a_page(folder, monkeypatch):
    console = _Console()

    def interrupt(_):
        raise KeyboardInterrupt

    monkeypatch.setattr(time, "sleep", interrupt)
    assert command.report([folder], None, console, live=True) == 0
    assert "has ended" in console.said[-1]
    assert not (folder / "report.html").exists()


def _wait(condition):
    until = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.01)
