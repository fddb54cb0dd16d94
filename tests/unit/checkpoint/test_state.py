"""A sharded model and its AdamW that are restored from a checkpoint continue with the same bits."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard

from rlsync.checkpoint.state import load_state, save_state


def _make(mesh, seed):
    torch.manual_seed(seed)
    module = torch.nn.Sequential(torch.nn.Linear(6, 9), torch.nn.Linear(9, 3))
    torch.nn.init.ones_(module[1].bias).requires_grad_(False)
    fully_shard(module, mesh=mesh)
    return module, torch.optim.AdamW([p for p in module.parameters() if p.requires_grad], lr=0.1)


def _steps(module, optimizer, first, count):
    for step in range(first, first + count):
        x = torch.randn(4, 6, generator=torch.Generator().manual_seed(step))
        module(x).square().sum().backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
    return [p.full_tensor().detach().clone() for p in module.parameters()]


def _run(rank, ranks, folder, mode):
    dist.init_process_group("gloo", store=dist.FileStore(f"{folder}/store_{mode}", ranks), rank=rank, world_size=ranks)
    mesh = init_device_mesh("cpu", (ranks,))
    # The second has taken no step, like a policy during the critic's warm-up.
    main, fresh = _make(mesh, 0), _make(mesh, 1)
    parts, counters = {"main": main, "fresh": fresh}, torch.tensor([3, 7])
    if mode == "save":
        _steps(*main, 0, 3)
        save_state(Path(folder), parts, counters)
    else:
        other = {"main": _make(mesh, 5), "fresh": _make(mesh, 6)}
        found = torch.zeros(2, dtype=torch.int64)
        load_state(Path(folder), other, found)
        _steps(*main, 0, 3)
        assert torch.equal(found, counters)
        assert not other["fresh"][1].state
        if mode == "forget":  # the control: without the moments the next steps differ
            other["main"][1].state.clear()
        same = [
            torch.equal(a, b)
            for name in parts
            for a, b in zip(_steps(*parts[name], 3, 2), _steps(*other[name], 3, 2), strict=True)
        ]
        assert all(same) == (mode == "load"), same
    dist.barrier()  # a thread of gloo frees the last tensors; during Python's exit that would abort the process
    dist.destroy_process_group()


def _together(ranks, folder, mode):
    command = [sys.executable, __file__, str(ranks), str(folder), mode]
    env = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"}
    running = [
        subprocess.Popen([*command, str(rank)], env=env, stderr=subprocess.PIPE, text=True) for rank in range(ranks)
    ]
    for process in running:
        _, err = process.communicate(timeout=120)
        assert process.returncode == 0, err


@pytest.mark.parametrize(("ranks", "mode"), [(2, "load"), (1, "load"), (2, "forget")])
def test_state_comes_back(tmp_path, ranks, mode):
    _together(2, tmp_path, "save")
    _together(ranks, tmp_path, mode)


if __name__ == "__main__":
    _run(int(sys.argv[4]), int(sys.argv[1]), sys.argv[2], sys.argv[3])
