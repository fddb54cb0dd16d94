"""Where a run reports to: what is decided before its processes start, and what wandb is told about it."""

import subprocess
import sys
from types import SimpleNamespace

import pytest

from rlsync.checkpoint.progress import Progress
from rlsync.cli import main
from rlsync.config.compose import compose_train
from rlsync.config.telemetry import TelemetryConfig, WandbMode
from rlsync.controller import sinks
from rlsync.controller.sinks import describe, plain
from rlsync.errors import ConfigError
from rlsync.models.paths import ModelPaths
from rlsync.telemetry import destinations, wandb_sink
from rlsync.telemetry.destinations import choose_destinations
from rlsync.telemetry.provenance import commit
from rlsync.telemetry.wandb_mode import Server, WandbChoice
from rlsync.telemetry.wandb_sink import RunDescription, WandbSink

CLUSTER = SimpleNamespace(fingerprint="0123456789abcdef", device_name=lambda: "a processor")
VARIABLES = ("WANDB_MODE", "WANDB_PROJECT", "WANDB_TAGS", "WANDB_NOTES", "WANDB_NAME")


@pytest.fixture(autouse=True)
def no_variables(monkeypatch):
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)


def _describe(monkeypatch, *overrides, command="rlsync train"):
    monkeypatch.setattr(sinks, "load_config", lambda *_: SimpleNamespace(model_type="qwen3"))
    config = compose_train(["recipe=grpo_arithmetic_tiny_cpu", *overrides])
    return describe(config, ModelPaths(policy="m"), CLUSTER, Progress(), command)


def test_what_wandb_is_told(monkeypatch):
    about = _describe(monkeypatch, "telemetry.tags=[mine]", command="rlsync train data.path=https://u:pw@h/x")
    assert (about.project, about.entity, about.name) == ("rlsync", None, "grpo_arithmetic_tiny_cpu")
    assert about.tags == ["grpo_arithmetic_tiny_cpu", "grpo", "qwen3", "mine"]
    assert about.notes == "rlsync train data.path=https://***@h/x"
    made = about.config["provenance"]
    assert (made["kernels"], made["device"]) == ("0123456789abcdef", "a processor")
    assert set(made["versions"]) == {"rlsync", "python", "torch", "vllm", "transformers", "ray", "triton"}
    assert set(made["commit"]) == {"hash", "dirty"}
    assert about.config["trainer"]["ranks"] == 2
    assert "advice" not in str(about.config["alarms"])
    assert _describe(monkeypatch, "algorithm=gspo").tags[1:3] == ["gspo", "qwen3"]


def test_wandb_s_own_variables_are_read(monkeypatch):
    for name in VARIABLES:
        monkeypatch.setenv(name, f"a {name}, b")
    about = _describe(monkeypatch)
    assert (about.project, about.name, about.notes) == ("a WANDB_PROJECT, b", "a WANDB_NAME, b", "a WANDB_NOTES, b")
    assert about.tags[-2:] == ["a WANDB_TAGS", "b"]
    assert _describe(monkeypatch, "telemetry.project=p").project == "p"


def test_the_commit_of_a_folder(tmp_path):
    assert commit(tmp_path).hash is None

    def git(*arguments):
        subprocess.run(["git", "-C", tmp_path, "-c", "user.name=n", "-c", "user.email=e", *arguments], check=True)

    git("init", "--quiet")
    (tmp_path / "a").write_text("1")
    git("add", "a")
    git("commit", "--quiet", "--message", "m")
    clean = commit(tmp_path)
    assert (len(clean.hash), clean.dirty) == (40, False)
    (tmp_path / "a").write_text("2")
    assert commit(tmp_path) == type(clean)(hash=clean.hash, dirty=True)


def test_an_offline_run_is_announced_before_anything_is_started(monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(destinations, "ask_server", lambda: Server(logged_in=True, problem="the server is gone"))
    monkeypatch.setattr("rlsync.controller.train.prepare", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        main(["train", f"run.dir={tmp_path}/run"])
    assert capsys.readouterr().out == "wandb is offline: the server is gone\n"
    assert main(["train", f"run.dir={tmp_path}/run", "telemetry.wandb=online"]) == 2
    assert "telemetry.wandb=online: the server is gone" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_tensorboard_is_looked_for_first(monkeypatch):
    monkeypatch.setattr(destinations, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"telemetry\.tensorboard=true needs.*'rlsync\[tensorboard\]'"):
        choose_destinations(TelemetryConfig(tensorboard=True, wandb=WandbMode.disabled), print)


@pytest.mark.parametrize("required", [False, True])
def test_a_server_that_refuses_the_run(monkeypatch, tmp_path, required):
    started, said = [], []

    def init(**settings):
        started.append(settings["mode"])
        if settings["mode"] == "online":
            raise wandb_sink.wandb.errors.CommError("no such entity\nmore")
        return SimpleNamespace(define_metric=lambda *_, **__: None, id="x", offline=True)

    monkeypatch.setattr(wandb_sink.wandb, "init", init)
    monkeypatch.setattr(wandb_sink.wandb, "teardown", lambda: None)
    about = RunDescription(project="p", entity="e", name="n", folder=tmp_path)
    choice = WandbChoice(mode=WandbMode.online, required=required)
    if required:
        with pytest.raises(ConfigError, match=r"project p of entity e \(no such entity\).*telemetry\.wandb=offline"):
            WandbSink(choice, about, said.append)
        return
    sink = WandbSink(choice, about, said.append)
    assert (started, sink.run_id, sink.entity) == (["online", "offline"], "x", None)
    assert said == ["wandb is offline, because its server does not accept the run (no such entity)"]


def test_the_configuration_in_wandb_is_that_of_config_yaml():
    config = compose_train(["seed=5", "alarms=none"])
    assert (plain(config)["seed"], plain(config)["alarms"]) == (5, {})


def test_where_metrics_go_is_decided_without_torch_and_ray():
    code = "import sys, rlsync.cli, rlsync.telemetry.destinations; print({'torch', 'ray', 'vllm'} & sys.modules.keys())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"
