"""A damaged checkpoint, or one with other tensors, is refused in one line that names the file or the tensor."""

import json
from dataclasses import asdict

import pytest
import torch

from rlsync.checkpoint.progress import Progress, keep, newest
from rlsync.checkpoint.state import load_state, save_state
from rlsync.errors import ConfigError


def _parts(*, width=9, trained=True, names=("policy",)):
    parts = {}
    for name in names:
        module = torch.nn.Sequential(torch.nn.Linear(6, width), torch.nn.Linear(width, 3))
        module[1].requires_grad_(trained)
        optimizer = torch.optim.AdamW([p for p in module.parameters() if p.requires_grad])
        module(torch.ones(2, 6)).sum().backward()
        optimizer.step()
        parts[name] = (module, optimizer)
    return parts


def _load(folder, **kinds):
    load_state(folder, _parts(**kinds), torch.zeros(3, dtype=torch.int64))


@pytest.fixture
def checkpoint(tmp_path):
    folder = tmp_path / "checkpoints/step_2"
    save_state(folder, _parts(), torch.tensor([2, 2, 0]))
    keep(folder, Progress(step=2, saved=[2]))
    _load(folder)  # the control
    return folder


@pytest.mark.parametrize(
    ("kinds", "told"),
    [
        ({"width": 8}, r"policy/0\.bias is \[9\] there and \[8\] here"),
        ({"trained": False}, r"policy/1\.bias is \[3\] there and missing here"),
        ({"names": ("policy", "critic")}, r"critic/0\.bias is missing there and \[9\] here"),
        ({"names": ()}, r"policy/0\.bias is \[9\] there and missing here"),
    ],
)
def test_a_state_of_other_tensors(checkpoint, kinds, told):
    with pytest.raises(ConfigError, match=rf"run\.resume=true: {checkpoint}/state .*{told}.*model\.lora.*run\.dir"):
        _load(checkpoint, **kinds)


def _remove(path):
    path.unlink()


def _cut(path):
    path.write_bytes(path.read_bytes()[:100])


@pytest.mark.parametrize("break_it", [_remove, _cut])
@pytest.mark.parametrize("name", [".metadata", "__0_0.distcp"])
def test_a_state_that_cannot_be_read(checkpoint, name, break_it):
    break_it(checkpoint / "state" / name)
    with pytest.raises(ConfigError, match=rf"run\.resume=true: {checkpoint}/state cannot be read") as told:
        _load(checkpoint)
    assert "\n" not in told.value.message


WHOLE = json.dumps(asdict(Progress(step=2)))


@pytest.mark.parametrize(
    "text", ["", "{", "null", "[]", "{}", WHOLE[:-9], WHOLE.replace("prompts", "p"), WHOLE.replace("index", "i")]
)
def test_a_progress_that_cannot_be_read(checkpoint, text):
    file = checkpoint / "progress.json"
    file.write_text(WHOLE)
    assert newest(checkpoint.parent)[1].step == 2  # the control
    file.write_text(text)
    with pytest.raises(ConfigError, match=rf"run\.resume=true: {file} cannot be read.*model\.path={checkpoint}"):
        newest(checkpoint.parent)


def test_a_state_without_its_progress(checkpoint):
    """A run that stopped while it was saving."""
    assert newest(checkpoint.parent) is not None  # the control
    (checkpoint / "progress.json").unlink()
    assert newest(checkpoint.parent) is None
