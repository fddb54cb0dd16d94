"""Files that a checkpoint copies from the model from which it started, and folders that saving does not touch."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig

from rlsync.checkpoint.export import export_model
from rlsync.checkpoint.progress import Progress, keep, newest, resumable
from rlsync.config.model import ComputeDtype
from rlsync.data.char_tokenizer import build_char_tokenizer
from rlsync.data.stops import generation_stop_ids
from rlsync.verify.cases import Cell, Family, build_model


@pytest.fixture
def source(tmp_path: Path) -> Path:
    folder = build_model(Cell(Family.qwen3, ComputeDtype.float32, 1), tmp_path)
    build_char_tokenizer(folder / "tokenizer", "0123456789")
    for file in (folder / "tokenizer").iterdir():
        file.rename(folder / file.name)
    GenerationConfig(eos_token_id=[1, 7], do_sample=True).save_pretrained(folder)
    (folder / "LICENSE").write_text("free")
    (folder / "additional_chat_templates").mkdir()
    (folder / "additional_chat_templates" / "rag.jinja").write_text("{{ messages }}")
    for name in ("optimizer.bin", "rng_state.pth", "old.gguf", "progress.json", ".secret"):
        (folder / name).write_text("x")
    (folder / "state").mkdir()
    return folder


def export(source: Path, folder: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(source)
    state = {name: param.detach().bfloat16() for name, param in model.named_parameters()}
    export_model(state, model.config, torch.bfloat16, str(source), folder)


def test_a_checkpoint_has_what_its_source_has_besides_weights(source, tmp_path):
    saved = tmp_path / "step_2"
    export(source, saved)
    names = {str(path.relative_to(saved)) for path in saved.rglob("*") if path.is_file()}
    assert names == {
        "LICENSE",
        "additional_chat_templates/rag.jinja",
        "config.json",
        "generation_config.json",
        "model.safetensors",
        "tokenizer.json",
        "tokenizer_config.json",
    }
    assert (saved / "generation_config.json").read_bytes() == (source / "generation_config.json").read_bytes()
    assert json.loads((saved / "config.json").read_text())["dtype"] == "bfloat16"  # the control: it is not copied
    assert AutoTokenizer.from_pretrained(saved).get_vocab() == AutoTokenizer.from_pretrained(source).get_vocab()


def test_evaluating_a_checkpoint_stops_where_training_did(source, tmp_path):
    export(source, tmp_path / "step_2")
    assert generation_stop_ids(str(tmp_path / "step_2")) == generation_stop_ids(str(source)) == [1, 7]
    (source / "generation_config.json").unlink()
    assert generation_stop_ids(str(source)) == []  # the control: config.json has none
    config = json.loads((source / "config.json").read_text())
    (source / "config.json").write_text(json.dumps(config | {"eos_token_id": 5}))
    assert generation_stop_ids(str(source)) == [5]


def test_saving_follows_no_link(source, tmp_path):
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "mine").write_text("x")
    for name in ("step_2", "step_2.partial"):
        (tmp_path / name).symlink_to(elsewhere)
    export(source, tmp_path / "step_2")
    assert [path.name for path in elsewhere.iterdir()] == ["mine"]
    assert (tmp_path / "step_2" / "model.safetensors").is_file()
    assert not (tmp_path / "step_2").is_symlink()


def _checkpoint(folder: Path, saved: list[int]) -> Path:
    (folder / "state").mkdir(parents=True)
    (folder / "state" / "shard").write_text("x")
    keep(folder, Progress(step=saved[-1], saved=saved))
    return folder


def test_only_this_run_s_checkpoints_lose_their_state(tmp_path):
    checkpoints = tmp_path / "checkpoints"
    second = _checkpoint(checkpoints / "step_2", [2])
    best, other = (_checkpoint(checkpoints / name, [2]) for name in ("best", "step_3"))  # copies that the user made
    archive = _checkpoint(tmp_path / "archive", [2])
    (checkpoints / "latest").symlink_to("step_4")
    (checkpoints / "step_1").symlink_to(archive)
    fourth = _checkpoint(checkpoints / "step_4", [1, 2, 4])
    for kept in (best, other, archive, fourth, checkpoints / "latest"):
        assert (kept / "state" / "shard").is_file()
        assert (kept / "progress.json").is_file()
    assert not (second / "state").exists()  # the control
    assert not (second / "progress.json").exists()
    sixth = _checkpoint(checkpoints / "step_6", [2, 4, 6])
    assert (sixth / "state" / "shard").is_file()
    assert not (fourth / "state").exists()


def test_a_resume_takes_no_link_for_a_checkpoint(tmp_path):
    _checkpoint(tmp_path / "step_2", [2])
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / "latest").symlink_to(tmp_path / "step_2")
    (tmp_path / "checkpoints" / "step_3").symlink_to(tmp_path / "step_2")
    assert newest(tmp_path / "checkpoints") is None
    assert not resumable(tmp_path / "checkpoints")
    assert newest(tmp_path) is not None  # the control
