"""A judge's secrets are never written, and its answers have a time limit."""

import json
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from rlsync.cli import main
from rlsync.config.compose import compose_train, to_yaml
from rlsync.config.reward import RewardConfig, RewardKind
from rlsync.controller.sinks import plain
from rlsync.data.problem import Problem
from rlsync.errors import ConfigError, RlsyncError
from rlsync.redact import redacted
from rlsync.rewards import judge
from rlsync.rewards.judge import Judge, JudgeError

PROBLEM = Problem(id="0", prompt="p", answer="a")
SECRET = "hunter2hunter2hunter2"


class _Service(BaseHTTPRequestHandler):
    def do_POST(self):
        self.rfile.read(int(self.headers["Content-Length"]))
        self.server.seen.append(self.headers.get("Authorization"))
        answer = self.server.answer
        if callable(answer):
            return answer(self)
        self.send_response(200)
        self.end_headers()
        self.wfile.write(json.dumps(answer).encode())

    def log_message(self, *_):
        pass


@pytest.fixture
def service():
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Service)
    server.daemon_threads = True
    server.seen, server.answer, server.url = [], {"reward": 0.5}, f"http://127.0.0.1:{server.server_port}/score"
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def _judge(url, **values):
    return Judge(RewardConfig(kind=RewardKind.judge, judge_url=url, **{"judge_retries": 0, **values}))


def test_the_token_of_a_named_variable_is_sent(service, monkeypatch):
    monkeypatch.setenv("MY_JUDGE", f"{SECRET}\n")
    assert _judge(service.url, judge_token_env="MY_JUDGE")("c", PROBLEM) == 0.5
    assert _judge(service.url)("c", PROBLEM) == 0.5
    assert service.seen == [f"Bearer {SECRET}", None]


@pytest.mark.parametrize("value", [None, "", "  ", "two words", "line\nbreak", "\u00e4"])
def test_a_token_that_is_missing_or_cannot_be_sent_is_refused_unseen(value, monkeypatch):
    monkeypatch.delenv(SECRET, raising=False)
    if value is not None:
        monkeypatch.setenv("MY_JUDGE", value)
    name = SECRET if value is None else "MY_JUDGE"  # a token in the place of its name
    with pytest.raises(ConfigError, match=r"reward\.judge_token_env") as told:
        _judge("http://x/", judge_token_env=name)
    assert SECRET not in told.value.message
    assert not value or not value.strip() or value not in told.value.message


@pytest.mark.parametrize(
    "url",
    [
        f"https://user:{SECRET}@host/score",
        f"https://{SECRET}@host/score",
        f"https://host/score?token={SECRET}",
        f"https://host/score?v=1&api_key={SECRET}",
        f"https://host/score?key={SECRET}",
        f"https://host/score?q={SECRET}",
        f"https://host/{SECRET}/score",
    ],
)
def test_a_secret_in_the_url_is_refused_unseen(url, capsys):
    code = main(["train", "--dry-run", "reward=judge", f'reward.judge_url="{url}"'])
    shown = capsys.readouterr()
    assert code == 2
    assert "reward.judge_url=https://" in shown.err
    assert "reward.judge_token_env" in shown.err
    assert SECRET not in shown.err + shown.out


@pytest.mark.parametrize("url", ["localhost:8000/score", "http://", "ftp://host/x", "http://host:port/", "score"])
def test_what_is_no_address_is_refused(url):
    with pytest.raises(ConfigError, match=r"reward\.judge_url=.*is not the address of a service"):
        RewardConfig(kind=RewardKind.judge, judge_url=url)


def test_other_urls_are_accepted():
    url = "http://judge.example.org:8000/v2/score?model=judge-v2&temperature=0"
    assert RewardConfig(kind=RewardKind.judge, judge_url=url).judge_url == url


def test_urls_are_redacted_wherever_they_are_written():
    text = f"see https://u:{SECRET}@h:1/a?b={SECRET}#{SECRET}, then x://h/{SECRET}/b and http://h/plain"
    assert redacted(text) == "see https://***@h:1/a?b=*** then x://h/***/b and http://h/plain"
    assert SECRET not in RlsyncError(text).message
    config = compose_train([f'data.template="https://u:{SECRET}@h/ {{question}}"'])
    assert SECRET not in to_yaml(config)
    assert SECRET not in json.dumps(plain(config))
    assert SECRET in config.data.template  # the control: the run itself has the secret


def test_an_error_of_a_judge_has_no_secret(service, monkeypatch):
    monkeypatch.setenv("MY_JUDGE", SECRET)
    service.answer = lambda handler: handler.send_error(401, f"no {handler.headers['Authorization'][:6]}")
    url = f"{service.url}?model=m"
    with pytest.raises(JudgeError, match=r"/score\?model=\*\*\*: HTTP 401") as told:
        _judge(url, judge_token_env="MY_JUDGE")("c", PROBLEM)
    assert SECRET not in str(told.value)
    for answer in ({"score": 1}, [], "text"):
        service.answer = answer
        with pytest.raises(JudgeError, match=r'answer is not \{"reward": number\}'):
            _judge(service.url)("c", PROBLEM)


def _drip(headers_first):
    def answer(handler):
        text = b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n" + (b"\r\n" if headers_first else b"X-Slow: ")
        try:
            handler.wfile.write(text)
            for _ in range(300):
                handler.wfile.write(b" ")
                handler.wfile.flush()
                time.sleep(0.1)
        except OSError:
            pass  # the judge has closed the connection

    return answer


@pytest.mark.parametrize("headers_first", [True, False])
def test_a_judge_that_drips_is_cut_off(service, headers_first):
    """Without a limit for the whole answer it would take 30 s, because each byte arrives well within the limit."""
    service.answer = _drip(headers_first)
    started = time.monotonic()
    with pytest.raises(JudgeError, match=r"took longer than reward\.judge_timeout_s=0\.5"):
        _judge(service.url, judge_timeout_s=0.5)("c", PROBLEM)
    assert time.monotonic() - started < 20  # far from the 30 s, whatever else the machine does


def test_an_endless_answer_is_not_kept(service):
    def endless(handler):
        handler.send_response(200)
        handler.end_headers()
        try:
            while True:
                handler.wfile.write(b" " * 65536)
        except OSError:
            pass

    service.answer = endless
    with pytest.raises(JudgeError, match="longer than 1048576 bytes"):
        _judge(service.url)("c", PROBLEM)


def test_calls_of_several_threads_run_together(service, monkeypatch):
    monkeypatch.setattr(judge, "_FIRST_PAUSE_S", 0.01)
    barrier = threading.Barrier(4)

    def together(handler):
        barrier.wait(30)
        handler.send_response(200)
        handler.end_headers()
        handler.wfile.write(b'{"reward": 1}')

    service.answer = together
    ask, results = _judge(service.url), []
    threads = [threading.Thread(target=lambda: results.append(ask("c", PROBLEM))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert results == [1] * 4
