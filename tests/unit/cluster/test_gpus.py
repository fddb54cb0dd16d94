"""Which GPUs engines get, how many a run needs, and which rank feeds which worker."""

import os
from typing import Any

import pytest
import ray
from ray.cluster_utils import Cluster as RayCluster

from rlsync.cluster import session
from rlsync.cluster.env import driver_variables
from rlsync.cluster.gpus import Place, engine_places, feeders, gpus_needed, gpus_of_an_engine
from rlsync.cluster.launch import make_engines, make_trainers, shared_places
from rlsync.cluster.run_plan import plan_run
from rlsync.config.compose import compose_train
from rlsync.errors import ConfigError
from rlsync.models.paths import ModelPaths

RANKS = [Place(node="a", gpus=(str(i),)) for i in range(4)] + [Place(node="b", gpus=(str(i),)) for i in range(4)]
MODEL = {"reward": "model", "reward.model_path": "x"}


def _config(**values: Any):
    overrides = {"cluster": "local_gpu", "trainer.ranks": 8, "rollout.engines": 4, "rollout.tp": 2} | values
    return compose_train([f"{key}={value}" for key, value in overrides.items()])


def _plan(config, *, trains=True):
    return plan_run(config, ModelPaths(policy="policy"), trains=trains)


def test_colocated_engines_take_the_ranks_gpus_in_order():
    places = engine_places(RANKS, engines=4, tp=2)
    assert [place.node for place in places] == ["a", "a", "b", "b"]
    assert [place.gpus for place in places] == [("0", "1"), ("2", "3"), ("0", "1"), ("2", "3")]
    assert feeders(_plan(_config())) == list(range(8))
    assert gpus_of_an_engine(_plan(_config())) == 0


def test_an_engine_stays_on_one_node():
    with pytest.raises(ConfigError, match=r"rollout\.tp=8.*engine 0.*several nodes"):
        engine_places(RANKS, engines=1, tp=8)


@pytest.mark.parametrize("gpus", [(), ("0", "1"), ("1",)])
def test_a_rank_without_a_gpu_of_its_own_is_refused(gpus):
    with pytest.raises(ConfigError, match="must see one GPU of its own"):
        engine_places([Place(node="a", gpus=("1",)), Place(node="a", gpus=gpus)], engines=1, tp=2)


def test_separate_engines_have_gpus_of_their_own_and_one_feeder():
    plan = _plan(_config(**{"cluster.placement": "separate"}))
    assert feeders(plan) == [0] * 8
    assert gpus_of_an_engine(plan) == 2


@pytest.mark.parametrize(
    ("values", "trains", "needed"),
    [
        ({}, True, 8),
        ({}, False, 8),  # an evaluation has no ranks to share with
        ({"cluster.placement": "separate"}, True, 16),
        (MODEL | {"reward.model_gpus": 0.4}, True, 8),
        (MODEL | {"reward.model_gpus": 0.5}, True, 9),
        (MODEL | {"reward.model_gpus": 2}, False, 10),
    ],
)
def test_a_run_needs_whole_gpus(values, trains, needed):
    config = _config(**values)
    assert gpus_needed(_plan(config, trains=trains), config.reward.gpu_shares) == needed


def test_too_many_workers_for_the_ranks_are_refused():
    with pytest.raises(ConfigError, match=r"placement=colocated.*rollout\.engines=5.*trainer\.ranks=8.*separate"):
        _config(**{"rollout.engines": 5})


@pytest.mark.parametrize("values", [{"cluster.placement": "separate"}, {"cluster.device": "cpu"}])
def test_engines_sleep_only_beside_a_trainer(values):
    assert _config(**{"rollout.sleep": True}).rollout.sleep
    with pytest.raises(ConfigError, match=r"rollout\.sleep=true"):
        _config(**{"rollout.sleep": True}, **values)


@pytest.fixture(scope="module")
def two_nodes():
    """Ray on two nodes of four GPUs each; nothing uses them."""
    driver = driver_variables(local=True)
    before = {name: os.environ.get(name) for name in driver}
    os.environ.update(driver)
    cluster = RayCluster()
    for _ in range(2):
        cluster.add_node(num_cpus=8, num_gpus=4, include_dashboard=False)
    ray.init(address=cluster.address, log_to_driver=False, logging_level="ERROR")
    yield
    ray.shutdown()
    cluster.shutdown()
    for name, value in before.items():
        os.environ.pop(name) if value is None else os.environ.update({name: value})


def test_a_colocated_engine_is_where_its_ranks_are(two_nodes):
    config = _config(**{"trainer.ranks": 6, "rollout.engines": 3})
    plan = _plan(config)
    trainers = make_trainers(config.cluster, plan)
    places = shared_places(config.cluster, plan, trainers)
    engines = make_engines(config.cluster, plan, places)
    ranks = ray.get([member.handle.place.remote() for member in trainers])
    assert len({(rank.node, rank.gpus) for rank in ranks}) == 6
    for index, place in enumerate(places):
        pair = ranks[2 * index : 2 * index + 2]
        assert {rank.node for rank in pair} == {place.node}
        assert [rank.gpus[0] for rank in pair] == list(place.gpus)
    assert [ray.get(member.handle.place.remote()).node for member in engines] == [place.node for place in places]
    for member in (*trainers, *engines):
        ray.kill(member.handle)


def test_more_gpus_than_there_are_is_an_error_at_once(two_nodes):
    session._check_gpus(_config(), _plan(_config()))
    for values, message in (
        ({"trainer.ranks": 9}, "needs 9 GPUs.*finds 8"),
        (MODEL | {"reward.model_gpus": 0.5}, "needs 9 GPUs"),
        ({"rollout.tp": 8, "rollout.engines": 1}, r"rollout\.tp=8.*one node.*largest node has 4"),
    ):
        config = _config(**values)
        with pytest.raises(ConfigError, match=message):
            session._check_gpus(config, _plan(config))
