"""Which GPUs engines get, and which rank feeds which worker."""

import os
from typing import Any

import pytest
import ray

from rlsync.cluster.env import driver_variables
from rlsync.cluster.gpus import Place, engine_places, feeders, gpus_of_engines, gpus_of_trainers
from rlsync.cluster.launch import make_engines, make_trainers
from rlsync.config.compose import compose_train
from rlsync.errors import ConfigError

RANKS = [Place(node="a", gpus=(str(i),)) for i in range(4)] + [Place(node="b", gpus=(str(i),)) for i in range(4)]


def _config(**values: Any):
    overrides = {"cluster": "local_gpu", "trainer.ranks": 8, "rollout.engines": 4, "rollout.tp": 2} | values
    return compose_train([f"{key}={value}" for key, value in overrides.items()])


def test_colocated_engines_take_the_ranks_gpus_in_order():
    places = engine_places(RANKS, engines=4, tp=2)
    assert [place.node for place in places] == ["a", "a", "b", "b"]
    assert [place.gpus for place in places] == [("0", "1"), ("2", "3"), ("0", "1"), ("2", "3")]
    assert feeders(_config()) == list(range(8))
    assert gpus_of_engines(_config(), trainers=True) == 0


def test_places_sort_by_number():
    places = [Place(node="a", gpus=(gpu,)) for gpu in ("10", "2", "1")]
    assert [place.gpus[0] for place in sorted(places, key=lambda place: place.order)] == ["1", "2", "10"]


def test_an_engine_stays_on_one_node():
    with pytest.raises(ConfigError, match=r"rollout\.tp=8.*engine 0.*several nodes"):
        engine_places(RANKS, engines=1, tp=8)


def test_separate_engines_have_gpus_of_their_own_and_one_feeder():
    config = _config(**{"cluster.placement": "separate"})
    assert feeders(config) == [0] * 8
    assert gpus_of_engines(config, trainers=True) == 8
    assert gpus_of_trainers(config, trainers=True) > 4, "no two ranks on a GPU"


def test_an_evaluation_has_no_ranks_to_share_with():
    assert gpus_of_engines(_config(), trainers=False) == 8


def test_too_many_workers_for_the_ranks_are_refused():
    with pytest.raises(ConfigError, match=r"placement=colocated.*rollout\.engines=5.*trainer\.ranks=8.*separate"):
        _config(**{"rollout.engines": 5})


@pytest.fixture(scope="module")
def four_gpus():
    """Ray with the GPUs of a larger machine; nothing uses them."""
    driver = driver_variables()
    before = {name: os.environ.get(name) for name in driver}
    os.environ.update(driver)
    ray.init(num_cpus=8, num_gpus=4, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    yield
    ray.shutdown()
    for name, value in before.items():
        os.environ.pop(name) if value is None else os.environ.update({name: value})


def test_actors_go_where_they_belong(four_gpus):
    config = _config(**{"trainer.ranks": 4, "rollout.engines": 2})
    trainers, places = make_trainers(config, 4)
    engines = make_engines(config, places, trainers=True)
    found = ray.get([member.handle.place.remote() for member in trainers])
    assert [place.gpus for place in found] == [("0",), ("1",), ("2",), ("3",)]
    assert [place.gpus for place in places] == [("0", "1"), ("2", "3")]
    assert {place.node for place in ray.get([m.handle.place.remote() for m in engines])} == {found[0].node}
    for member in (*trainers, *engines):
        ray.kill(member.handle)


def test_separate_actors_share_no_gpu(four_gpus):
    config = _config(**{"trainer.ranks": 2, "rollout.engines": 1, "cluster.placement": "separate"})
    trainers, places = make_trainers(config, 2)
    engines = make_engines(config, places, trainers=True)
    found = ray.get([member.handle.place.remote() for member in (*trainers, *engines)])
    assert sorted(gpu for place in found for gpu in place.gpus) == ["0", "1", "2", "3"]
    assert not places
    for member in (*trainers, *engines):
        ray.kill(member.handle)
