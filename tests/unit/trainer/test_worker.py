"""What a trainer rank loads."""

from types import SimpleNamespace

import pytest
import torch.distributed as dist

from rlsync.config.compose import compose_train
from rlsync.trainer import worker as module


@pytest.mark.parametrize(
    ("overrides", "references"),
    [
        ([], []),
        (["algorithm.kl_coef=0.1"], [("policy", False)]),
        (["algorithm.kl_coef=0.1", "algorithm.kl_model=other"], [("other", False)]),
    ],
)
def test_the_reference_is_the_model_asked_for(monkeypatch, overrides, references):
    loaded = []

    def load(config, path, mesh, *, trainable):
        loaded.append((path, trainable))
        return SimpleNamespace()

    monkeypatch.setattr(module, "Sharded", load)
    monkeypatch.setattr(module, "StepRunner", lambda config, policy, reference: None)
    monkeypatch.setattr(module, "init_device_mesh", lambda device, shape: None)
    monkeypatch.setattr(module.dist, "init_process_group", lambda *args, **options: None)
    monkeypatch.setattr(module.torch, "set_num_threads", lambda count: None)
    module.TrainerWorker(compose_train(overrides), "policy", 0, dist.HashStore())
    assert loaded == [("policy", True), *references]
