"""Only one run at a time uses a run folder, however it ends, and a folder that cannot be written is refused."""

import errno
import os
import signal
import subprocess
import sys

import pytest

from rlsync.cli import main
from rlsync.errors import ConfigError
from rlsync.telemetry.run_lock import LOCK, held

_HOLD = """
import sys, time
from pathlib import Path
from rlsync.telemetry.run_lock import held
with held(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "runs/mine"


def test_a_folder_is_one_run_s_at_a_time(folder):
    with held(folder):
        with pytest.raises(ConfigError, match=rf"run\.dir={folder}: another run.*another run\.dir"), held(folder):
            pass
        with held(folder.with_name("other")):  # the control
            pass
        (folder / "metrics.jsonl").touch()
    with held(folder):
        assert (folder / "metrics.jsonl").exists()
    assert {path.name for path in folder.iterdir()} == {"metrics.jsonl", LOCK}


def test_the_lock_ends_with_a_killed_process(folder):
    command = [sys.executable, "-c", _HOLD, str(folder)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "held\n"
        with pytest.raises(ConfigError, match="another run"), held(folder):  # the control
            pass
        process.send_signal(signal.SIGKILL)
        process.wait(timeout=30)
    with held(folder):
        pass


def test_a_folder_in_which_nothing_was_written_goes(folder):
    with pytest.raises(KeyError), held(folder):
        raise KeyError
    assert not folder.exists()
    folder.mkdir()  # the user's own
    with pytest.raises(KeyError), held(folder):
        raise KeyError
    assert folder.exists()


@pytest.mark.parametrize("verb", ["train", "eval"])
@pytest.mark.parametrize("below", ["", "/below", "/below/it"])
def test_a_folder_that_cannot_be_made(tmp_path, capsys, verb, below):
    (tmp_path / "file").touch()
    run_dir = f"{tmp_path}/file{below}"
    assert main([verb, "recipe=grpo_arithmetic_tiny_cpu", f"run.dir={run_dir}"]) == 2
    shown = capsys.readouterr().err
    assert shown.startswith(f"rlsync: run.dir={run_dir}: nothing can be written there")
    assert shown.count("\n") == 1


@pytest.mark.parametrize("verb", ["train", "eval"])
def test_a_run_that_another_one_holds_up(folder, capsys, verb):
    with held(folder):
        assert main([verb, "recipe=grpo_arithmetic_tiny_cpu", f"run.dir={folder}"]) == 2
    assert f"run.dir={folder}: another run" in capsys.readouterr().err


def _fails(monkeypatch, number):
    def fails(*_):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr("fcntl.flock", fails)


def test_a_disk_that_fails(folder, monkeypatch):
    _fails(monkeypatch, errno.EIO)
    with pytest.raises(ConfigError, match=r"run\.dir=.*Input/output error.*can be made and is writable"), held(folder):
        pass


def test_a_file_system_without_locks(folder, monkeypatch, caplog):
    _fails(monkeypatch, errno.ENOLCK)
    with held(folder):
        assert (folder / LOCK).exists()
    assert f"run.dir={folder}: its file system has no locks" in caplog.text
