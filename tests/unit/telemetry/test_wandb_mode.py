"""Whether a run is online is decided before its processes start, by settings, variables and the server's answer."""

import threading
import time
from http.server import BaseHTTPRequestHandler, HTTPServer
from types import SimpleNamespace

import pytest
import wandb

from rlsync.config.telemetry import TelemetryConfig, WandbMode
from rlsync.errors import ConfigError
from rlsync.telemetry import wandb_mode
from rlsync.telemetry.wandb_mode import Server, ask_server, choose_mode

GOOD = Server(logged_in=True)
AWAY = Server(logged_in=True, problem="wandb's server X cannot be reached (gone)")
NOBODY = Server(logged_in=False)


def _choose(setting, variable, server):
    asked = []

    def ask():
        asked.append(1)
        return server

    environ = {} if variable is None else {"WANDB_MODE": variable}
    return choose_mode(TelemetryConfig(wandb=WandbMode(setting)), environ, ask), bool(asked)


@pytest.mark.parametrize(
    ("setting", "variable", "server", "mode", "asked"),
    [
        ("auto", None, GOOD, "online", True),
        ("auto", None, AWAY, "offline", True),
        ("auto", None, NOBODY, "offline", True),
        ("auto", "", GOOD, "online", True),
        ("auto", "online", GOOD, "online", True),
        ("auto", "offline", GOOD, "offline", False),
        ("auto", "dryrun", GOOD, "offline", False),
        ("auto", "disabled", GOOD, "disabled", False),
        ("offline", "online", GOOD, "offline", False),
        ("offline", "disabled", GOOD, "offline", False),
        ("disabled", "online", GOOD, "disabled", False),
        ("online", "disabled", GOOD, "online", True),
    ],
)
def test_which_setting_wins(setting, variable, server, mode, asked):
    choice, was_asked = _choose(setting, variable, server)
    assert (choice.mode.value, was_asked) == (mode, asked)
    assert choice.writes == (mode != "disabled")


def test_only_a_machine_that_is_logged_in_is_told_why_it_is_offline():
    assert _choose("auto", None, AWAY)[0].reason == AWAY.problem
    assert _choose("auto", None, NOBODY)[0].reason == ""


@pytest.mark.parametrize(("setting", "variable"), [("online", None), ("auto", "online")])
@pytest.mark.parametrize("server", [AWAY, NOBODY])
def test_online_by_name_is_refused_where_it_cannot_be(setting, variable, server):
    named = "WANDB_MODE=online" if variable else "telemetry.wandb=online"
    with pytest.raises(ConfigError, match=rf"^{named}: .*(cannot be reached|not logged in).*telemetry\.wandb=offline"):
        _choose(setting, variable, server)


def test_an_unknown_mode_is_refused():
    with pytest.raises(ConfigError, match=r"WANDB_MODE=of: wandb has no such mode\. Valid: online, .*disabled"):
        _choose("auto", "of", GOOD)


class _Silent(BaseHTTPRequestHandler):
    """Answers the first question, and no other."""

    def do_GET(self):
        self.send_response(404)
        self.end_headers()

    def do_POST(self):
        time.sleep(30)

    def log_message(self, *_): ...


@pytest.fixture
def server():
    http = HTTPServer(("127.0.0.1", 0), _Silent)
    threading.Thread(target=http.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{http.server_port}"
    threading.Thread(target=http.shutdown, daemon=True).start()


@pytest.fixture
def library(monkeypatch):
    """wandb with a key for a server, and with what happens when it asks that server who the user is."""

    def use(url, viewer=lambda: "user", *, logged_in=True):
        settings = SimpleNamespace(settings=SimpleNamespace(base_url=url))
        monkeypatch.setattr(wandb, "setup", lambda _: settings)
        monkeypatch.setattr(wandb, "login", lambda prompt, verify: logged_in)
        monkeypatch.setattr(wandb, "Api", lambda timeout: SimpleNamespace(viewer=viewer()))

    return use


def test_a_server_that_cannot_be_reached_is_found_out_soon(library, monkeypatch):
    library("http://127.0.0.1:9")
    assert "http://127.0.0.1:9 cannot be reached" in ask_server().problem
    library("http://wandb.invalid")
    monkeypatch.setattr(wandb_mode, "_reach", lambda url: time.sleep(30))
    monkeypatch.setattr(wandb_mode, "_REACH_S", 0.2)
    begun = time.monotonic()
    assert "it did not answer within 0.2 s" in ask_server().problem
    assert time.monotonic() - begun < 5


def test_a_variable_of_wandb_with_a_wrong_value_is_named(monkeypatch):
    def setup(_):
        raise ValueError("1 validation error\nbase_url\n  Input should be a valid URL")

    monkeypatch.setattr(wandb, "setup", setup)
    with pytest.raises(ConfigError, match=r"does not accept its settings: .* base_url Input should be a valid URL\."):
        ask_server()


def test_a_login_that_hangs_or_is_refused(library, server, monkeypatch):
    monkeypatch.setattr(wandb_mode, "_LOGIN_S", 0.2)
    library(server, lambda: time.sleep(30))
    assert "does not accept the login (it did not answer" in ask_server().problem

    def refused():
        raise wandb.errors.AuthenticationError("the key is wrong\nmore")

    monkeypatch.setattr(wandb_mode, "_LOGIN_S", 5.0)
    library(server, refused)
    assert "does not accept the login (the key is wrong)" in ask_server().problem
    library(server)
    assert ask_server() == GOOD  # the control
    library(server, logged_in=False)
    assert ask_server() == NOBODY
