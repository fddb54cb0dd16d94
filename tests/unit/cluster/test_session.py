"""Ray's start on a busy machine: it is tried again, and an error names the cause."""

import logging

import pytest

from rlsync.cluster import session
from rlsync.errors import RayStartError


@pytest.fixture
def ray_init(monkeypatch):
    """Let the first `failures` calls of ray.init fail as Ray does, and return the list of calls."""
    calls: list = []

    def make(failures):
        def init(**arguments):
            calls.append(arguments)
            if len(calls) <= failures:
                raise Exception("The current node timed out during startup.")

        monkeypatch.setattr(session.ray, "init", init)
        monkeypatch.setattr(session.ray, "shutdown", lambda: calls.append("shutdown"))
        return calls

    return make


def test_a_second_attempt_may_succeed(ray_init, tmp_path, caplog):
    calls = ray_init(1)
    with caplog.at_level(logging.WARNING):
        session._start_here(1.0, tmp_path)
    assert [call if call == "shutdown" else "init" for call in calls] == ["init", "shutdown", "init"]
    assert "attempt 1 of 3" in caplog.text


def test_an_error_after_the_last_names_the_cause(ray_init, tmp_path):
    ray_init(99)
    with pytest.raises(RayStartError, match=r"in 3 attempts .*timed out during startup.*cluster\.address"):
        session._start_here(1.0, tmp_path)


def test_the_first_attempt_is_the_usual_case(ray_init, tmp_path, caplog):
    calls = ray_init(0)
    session._start_here(1.0, tmp_path)
    assert len(calls) == 1
    assert not caplog.records
