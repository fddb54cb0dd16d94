"""The models that a trainer rank loads."""

from types import SimpleNamespace

import pytest
import torch.distributed as dist

from rlsync.cluster.run_plan import plan_run
from rlsync.config.compose import compose_train
from rlsync.models.paths import ModelPaths
from rlsync.trainer import worker as module


@pytest.mark.parametrize(
    ("reference", "references"), [("", []), ("policy", [("policy", False)]), ("other", [("other", False)])]
)
def test_the_reference_is_the_model_asked_for(monkeypatch, reference, references):
    loaded = []

    def load(settings, path, mesh, *, trainable):
        loaded.append((path, trainable))
        return SimpleNamespace()

    monkeypatch.setattr(module, "Sharded", load)
    monkeypatch.setattr(module, "StepRunner", lambda settings, policy, reference: None)
    monkeypatch.setattr(module, "init_device_mesh", lambda device, shape: None)
    monkeypatch.setattr(module.dist, "init_process_group", lambda *args, **options: None)
    monkeypatch.setattr(module.torch, "set_num_threads", lambda count: None)
    models = ModelPaths(policy="policy", reference=reference)
    module.TrainerWorker(plan_run(compose_train([]), models, trains=True).trainer, 0, dist.HashStore())
    assert loaded == [("policy", True), *references]
