"""The saved workspace of a wandb project, made without a network."""

import re
from pathlib import Path

import pytest

from rlsync.cli import main
from rlsync.telemetry import wandb_workspace
from rlsync.telemetry.wandb_mode import Server
from rlsync.telemetry.wandb_workspace import SECTIONS, build_workspace, save_for_first_run

METRICS = (Path(__file__).parents[3] / "docs/metrics.md").read_text()


def test_the_sections_show_metrics_that_the_documentation_explains():
    assert [name for name, _ in SECTIONS] == ["overview", "parity", "policy", "rollout", "time", "memory"]
    cells = re.findall(r"^\| (`.*?) \|", METRICS, flags=re.MULTILINE)
    known = set()
    for cell in cells:
        names = re.findall(r"`([^`]+)`", cell)
        section = names[0].partition("/")[0]
        known |= {name if "/" in name else f"{section}/{name}" for name in names}
    shown = {metric for _, panels in SECTIONS for panel in panels for metric in panel.metrics}
    assert shown - known == set()


def test_a_workspace_is_built():
    pytest.importorskip("wandb_workspaces")
    workspace = build_workspace("p", "e")
    assert (workspace.project, workspace.entity, workspace.name) == ("p", "e", "rlsync")
    assert [section.name for section in workspace.sections] == [name for name, _ in SECTIONS]
    assert [panel.title for panel in workspace.sections[0].panels] == [panel.title for panel in SECTIONS[0][1]]
    model = str(workspace._to_model().model_dump())
    assert all(metric in model for _, panels in SECTIONS for panel in panels for metric in panel.metrics)


def test_without_the_package_the_extra_is_named(monkeypatch, capsys):
    monkeypatch.setattr(wandb_workspace, "find_spec", lambda name: None)
    assert main(["wandb-workspace", "p"]) == 2
    assert "'rlsync[wandb]'" in capsys.readouterr().err


@pytest.mark.parametrize("server", [Server(logged_in=False), Server(logged_in=True, problem="it is gone")])
def test_without_a_server_it_says_so(monkeypatch, capsys, server):
    monkeypatch.setattr(wandb_workspace, "find_spec", lambda name: object())
    monkeypatch.setattr(wandb_workspace, "ask_server", lambda: server)
    assert main(["wandb-workspace", "p", "--entity", "e"]) == 2
    assert re.search("not logged in|it is gone", capsys.readouterr().err)


class _Api:
    runs_there = 1

    def __init__(self, timeout): ...

    def runs(self, path, per_page):
        assert path == "e/p"
        if self.runs_there is None:
            raise ValueError("no network")
        return [object()] * self.runs_there


@pytest.mark.parametrize(("there", "told"), [(0, "saved"), (1, "saved"), (2, None), (None, "no network")])
def test_the_first_run_of_a_project_saves_it(monkeypatch, there, told):
    said = []
    monkeypatch.setattr(wandb_workspace, "find_spec", lambda name: object())
    monkeypatch.setattr(wandb_workspace.wandb, "Api", _Api)
    monkeypatch.setattr(_Api, "runs_there", there)
    monkeypatch.setattr(wandb_workspace, "save_workspace", lambda project, entity: "saved")
    save_for_first_run("p", "e", said.append)
    assert len(said) == bool(told)
    assert all(told in text for text in said)
    monkeypatch.setattr(wandb_workspace, "find_spec", lambda name: None)
    said.clear()
    save_for_first_run("p", "e", said.append)
    assert said == []
