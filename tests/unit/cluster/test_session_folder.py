"""Ray's files are in a folder of the run with a short path, whatever TMPDIR and HOME are."""

from __future__ import annotations

import os
import stat
import tempfile
from contextlib import nullcontext
from pathlib import Path

import pytest

from rlsync import paths
from rlsync.cluster import session_folder as module
from rlsync.cluster.env import driver_variables, session_variables
from rlsync.cluster.session_folder import session_folder
from rlsync.errors import ConfigError, WorkerDiedError

SOCKET = "session_2026-11-27_23-23-11_798812_1234567/sockets/plasma_store"


@pytest.fixture
def long_tmpdir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A long TMPDIR, as jobs of a batch system have."""
    folder = tmp_path / ("x" * 90)
    folder.mkdir()
    monkeypatch.setenv("TMPDIR", str(folder))
    monkeypatch.delenv("RAY_TMPDIR", raising=False)
    monkeypatch.setattr(tempfile, "tempdir", None)
    return folder


def test_sockets_have_room_whatever_tmpdir_is(long_tmpdir: Path) -> None:
    with session_folder() as folder:
        assert len(os.fsencode(folder / SOCKET)) <= 107
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
        assert folder.name != "ray"  # Ray's default folder may belong to another user
        assert session_variables(folder)["TMPDIR"] == session_variables(folder)["VLLM_RPC_BASE_PATH"] == str(folder)
    assert not folder.exists()
    assert len(os.fsencode(long_tmpdir / "ray" / SOCKET)) > 107  # the control: Ray's own choice


def test_a_tmpdir_that_is_short_enough_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    with tempfile.TemporaryDirectory(dir="/tmp") as short:
        monkeypatch.setenv("RAY_TMPDIR", short)
        with session_folder() as folder:
            assert folder.parent == Path(short)


def test_tmpdir_is_named_where_there_is_no_room(long_tmpdir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_OTHERS", ("/proc", "/nowhere"))
    with pytest.raises(ConfigError, match=rf"TMPDIR={long_tmpdir}: Ray's sockets cannot be made"), session_folder():
        pass


def _session(folder: Path) -> None:
    """Make the files of a Ray session."""
    logs = folder / "session_1" / "logs"
    logs.mkdir(parents=True)
    (folder / "session_latest").symlink_to("session_1")
    (logs / "worker-1.err").write_text("what vLLM wrote")
    (logs / "empty.out").touch()


@pytest.mark.parametrize("error", [None, WorkerDiedError("gone"), ConfigError("wrong"), KeyboardInterrupt()])
def test_output_of_processes_moves_to_the_run_folder(tmp_path: Path, error: BaseException | None) -> None:
    with pytest.raises(type(error)) if error else nullcontext() as raised, session_folder(tmp_path / "logs") as folder:
        _session(folder)
        if error:
            raise error
    assert not folder.exists()
    kept = tmp_path / "logs" / "session_1"
    assert [(file.name, file.read_text()) for file in kept.iterdir()] == [("worker-1.err", "what vLLM wrote")]
    if isinstance(error, WorkerDiedError):
        assert raised.value.message == f"gone The output of all processes is in {kept}."


def test_without_a_run_folder_output_is_discarded() -> None:
    with session_folder() as folder:
        _session(folder)
    assert not folder.exists()


def test_a_home_that_cannot_be_written_leaves_caches_to_the_session(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("NUMBA_CACHE_DIR", "VLLM_CACHE_ROOT", "TRITON_CACHE_DIR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", "/proc")
    monkeypatch.setenv("VLLM_CACHE_ROOT", "/mine")
    monkeypatch.setattr(os, "access", lambda path, mode: path != "/proc")  # root can write everywhere
    variables = session_variables(tmp_path)
    assert variables["NUMBA_CACHE_DIR"] == str(tmp_path / "numba")
    assert "VLLM_CACHE_ROOT" not in variables  # the user's own stays
    monkeypatch.setenv("HOME", str(tmp_path))
    assert "NUMBA_CACHE_DIR" not in session_variables(tmp_path)  # the control


def test_a_user_without_a_home_is_told_so(monkeypatch: pytest.MonkeyPatch) -> None:
    paths.check_home()  # the control
    monkeypatch.setattr(os.path, "expanduser", lambda path: path)
    with pytest.raises(ConfigError, match=r"HOME is not set, and user id \d+ has no home folder"):
        paths.check_home()


def test_a_cache_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match=r"model\.cache_dir=.*file/x: nothing can be written there"):
        paths.check_writable(tmp_path / "file" / "x", "model.cache_dir")
    paths.check_writable(tmp_path / "new" / "x", "model.cache_dir")  # the control


def test_ray_s_secret_is_not_written_into_the_home(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_AUTH_TOKEN_PATH", raising=False)
    assert len(driver_variables(local=True)["RAY_AUTH_TOKEN"]) == 64
    assert "RAY_AUTH_TOKEN" not in driver_variables(local=False)  # a cluster has its own
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", "/mine")
    assert "RAY_AUTH_TOKEN" not in driver_variables(local=True)
