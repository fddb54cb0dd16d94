"""The command line: what it writes, and one sentence for each mistake."""

import subprocess
import sys

import pytest
from report_runs import Chunks, make_run

from rlsync.cli import main


@pytest.fixture
def run(tmp_path):
    return make_run(tmp_path / "runs/one")


def test_the_page_is_written_into_the_run_folder(run, capsys):
    assert main(["report", str(run)]) == 0
    assert "report.html: 0." in capsys.readouterr().out
    assert sorted(path.name for path in run.iterdir() if "report" in path.name) == ["report.html"]


def test_several_runs_are_in_one_page_and_one_run_is_there_once(run, tmp_path):
    other, out = make_run(tmp_path / "runs/two", lr="3e-6", seed=4), tmp_path / "page.html"
    assert main(["report", str(run), "--out", str(out), str(other), f"{run}/../one"]) == 0
    runs = Chunks(out.read_text())["core"]["runs"]
    assert [each["name"] for each in runs] == ["sums (one)", "sums (two)"]
    differ = {key for key in runs[0]["config"] if runs[0]["config"][key] != runs[1]["config"][key]}
    assert differ == {"seed", "trainer.lr", "model.path"}


def test_the_machine_s_folders_are_not_in_the_page(run):
    assert main(["report", str(run)]) == 0
    core = Chunks((run / "report.html").read_text())["core"]
    del core["runs"][0]["config"]
    assert str(run.parent) not in str(core)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["{folder}/none"], "{folder}/none does not exist. Give the folder of a run, such as runs/NAME"),
        (["{folder}"], "{folder} is not the folder of a training run, or its run has not begun its first step"),
        (["{run}", "--out", "{folder}/a/b.html"], "--out={folder}/a/b.html: there is no folder {folder}/a. Make it"),
        (["{run}", "--out", "{folder}"], "--out={folder} is a folder. Give a file in it"),
        (["{run}", "--port", "99999", "--live"], "--port=99999: a port is at least 0 and at most 65535"),
        (["{run}", "--port", "8000"], "--port=8000: only --live serves the page"),
        (["{run}", "--out", "/proc/report.html"], "--out=/proc/report.html: the report cannot be written there"),
    ],
)
def test_a_mistake_is_one_sentence(run, tmp_path, capsys, words, message):
    names = {"folder": tmp_path, "run": run}
    assert main(["report", *(word.format(**names) for word in words)]) == 2
    error = capsys.readouterr().err
    assert message.format(**names) in error
    assert len(error.splitlines()) == 1


def test_too_many_runs(tmp_path, capsys):
    runs = [make_run(tmp_path / str(number), steps=0) for number in range(17)]
    assert main(["report", *map(str, runs)]) == 2
    assert "17 runs are more than the 16" in capsys.readouterr().err


@pytest.mark.parametrize("words", [["report"], ["report", "x", "--no-such"]])
def test_wrong_options_are_refused(words, capsys):
    with pytest.raises(SystemExit, match="2"):
        main(words)
    assert "usage:" in capsys.readouterr().err


def test_a_report_imports_neither_torch_nor_ray_nor_vllm(run):
    code = (
        "import sys; from rlsync.cli import main; code = main(sys.argv[1:]); "
        "sys.exit(code or [name for name in ('torch', 'ray', 'vllm', 'transformers') if name in sys.modules] or None)"
    )
    done = subprocess.run([sys.executable, "-c", code, "report", str(run)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
