import json
import socket
import types

import pytest
import tensorflow as tf

from keras_sagan import distribution
from keras_sagan.distribution import check_tf_config, is_chief, make_strategy


def config(workers=("a:1", "b:1"), index=0, kind="worker"):
    return json.dumps({"cluster": {"worker": workers}, "task": {"type": kind, "index": index}})


def test_one_device(monkeypatch):
    monkeypatch.delenv("TF_CONFIG", raising=False)
    for name in ("auto", "none"):
        assert make_strategy(name).num_replicas_in_sync == 1


@pytest.mark.parametrize("count, expected", [(0, "none"), (1, "none"), (2, "mirrored")])
def test_auto_mirrors_over_several_gpus(count, expected, monkeypatch):
    monkeypatch.delenv("TF_CONFIG", raising=False)
    monkeypatch.setattr(tf.config, "list_logical_devices", lambda kind=None: ["a GPU"] * count)
    assert distribution._resolve(None) == expected
    monkeypatch.setenv("TF_CONFIG", config(workers=("a:1",)))  # One worker is this machine alone.
    assert distribution._resolve(None) == expected


def test_mirrored_on_this_machine():
    assert isinstance(make_strategy("mirrored"), tf.distribute.MirroredStrategy)


@pytest.mark.parametrize("name", ["mirrored", "none"])
def test_a_tpu_for_another_strategy(name):
    message = f"`tpu` must be None except for .*Received: tpu='local' for the strategy '{name}'"
    with pytest.raises(ValueError, match=message):
        make_strategy(name, tpu="local")


def test_unknown_name():
    with pytest.raises(ValueError, match="`name` must be one of .*Received: name='gpu'"):
        make_strategy("gpu")


@pytest.mark.parametrize("name", ["tpu", "auto"])
def test_a_tpu_that_cannot_be_resolved(name, monkeypatch):
    def fail(**kwargs):
        raise tf.errors.UnavailableError(None, None, "no route")

    monkeypatch.setattr(tf.distribute.cluster_resolver, "TPUClusterResolver", fail)
    with pytest.raises(ValueError, match="`tpu` must be .*Received: tpu='nowhere'.*no route"):
        make_strategy(name, tpu="nowhere")


@pytest.mark.slow
@pytest.mark.parametrize("tpu", ["nowhere", "local"])
def test_a_tpu_that_tensorflow_itself_does_not_find(tpu):
    with pytest.raises(ValueError, match=f"`tpu` must be .*Received: tpu='{tpu}', for which"):
        make_strategy("tpu", tpu=tpu)


@pytest.mark.parametrize("listens", [False, True])
def test_a_tpu_that_does_not_answer(listens, monkeypatch):
    """TensorFlow alone waits for an address without end, also for one that nobody listens at."""
    monkeypatch.setattr(distribution, "_TPU_PATIENCE", 0.5)
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        if listens:
            silent.listen()
        tpu = f"grpc://127.0.0.1:{silent.getsockname()[1]}"
        with pytest.raises(
            ValueError, match="`tpu` must be .*Received: tpu='grpc.* no answer from"
        ):
            make_strategy("tpu", tpu=tpu)


@pytest.mark.parametrize(
    "text",
    [
        config(["a:1", "b:65535"], index=1),
        config(["10.0.0.1:12345", "host-1.example.org:80"], index="1"),
        config(["[::1]:1234", "b:1"]),
    ],
)
def test_addresses_and_numbers_that_tensorflow_takes(text):
    assert check_tf_config(text) == 2


def test_workers_that_cannot_be_joined_are_named(monkeypatch):
    """TensorFlow has computed something by now, after which it joins no workers."""
    tf.constant(1)
    monkeypatch.setenv("TF_CONFIG", config(["127.0.0.1:1", "127.0.0.1:2"]))
    with pytest.raises(RuntimeError, match="make_strategy before.*TF_CONFIG=.*TensorFlow says: "):
        make_strategy()


def test_tf_config_counts_workers(monkeypatch):
    assert check_tf_config(config()) == 2
    assert check_tf_config(config(["a:1"])) == 1
    monkeypatch.setenv("TF_CONFIG", config(["a:1"]))
    assert make_strategy("auto").num_replicas_in_sync == 1


@pytest.mark.parametrize(
    "text",
    [
        None,
        "",
        "{not json",
        "[]",
        "{}",
        config([]),
        config(index=2),
        config(index=-1),
        config(kind="boss"),
        config(["a"]),
        config(["a:http", "b:1"]),
        config(["a:1", "a:1"]),
        config([["a:1"]]),
        '{"cluster": {"worker": ["a:1"], "ps": ["b:1"]}, "task": {"type": "ps", "index": 0}}',
        json.dumps({"cluster": {"worker": "a:1"}}),
        config(["a:99999999", "b:1"]),
        config(["a:65536", "b:1"]),
        config(["a:1", "b:0"]),
        config(["a:-1"]),
        config(["a:1:2"]),
        config([":1"]),
        config(["a b:1"]),
        config(["a:1", 7]),
        config(["a:1", None]),
        config({"0": "a:1"}),
        config(index=0.5),
        config(index=True),
        config(index="first"),
        config(index=float("inf")),
        config(index=float("nan")),
        config(index=None),
        config(kind=["worker"]),
        json.dumps({"cluster": [], "task": {"type": "worker", "index": 0}}),
        json.dumps({"cluster": {"worker": ["a:1"]}, "task": []}),
        json.dumps({"cluster": {"chief": ["a:1", "b:1"]}, "task": {"type": "chief", "index": 0}}),
        json.dumps(
            {
                "cluster": {"worker": ["a:1"], "evaluator": ["b"]},
                "task": {"type": "worker", "index": 0},
            }
        ),
        100_000 * "[",
    ],
)
def test_malformed_tf_config(text, monkeypatch):
    with pytest.raises(ValueError, match="TF_CONFIG must be JSON like .*Received: TF_CONFIG="):
        check_tf_config(text)
    if text:
        monkeypatch.setenv("TF_CONFIG", text)
        for name in ("multi_worker", "auto"):
            with pytest.raises(ValueError, match="TF_CONFIG must be JSON"):
                make_strategy(name)


def strategy_of(task_type, task_id, jobs=("worker",)):
    strategy = object.__new__(tf.distribute.MultiWorkerMirroredStrategy)
    spec = types.SimpleNamespace(jobs=list(jobs))
    resolver = types.SimpleNamespace(
        task_type=task_type, task_id=task_id, cluster_spec=lambda: spec
    )
    strategy._extended = types.SimpleNamespace(_cluster_resolver=resolver)
    return strategy


def test_who_is_chief():
    assert is_chief(strategy_of("worker", 0)) and is_chief(strategy_of("chief", 0))
    assert not is_chief(strategy_of("worker", 1))
    assert not is_chief(strategy_of("worker", 0, ("chief", "worker")))
    assert is_chief(tf.distribute.get_strategy())
