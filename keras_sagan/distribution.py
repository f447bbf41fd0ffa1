"""Distribution strategies by name, with errors that say what is missing."""

import atexit
import contextlib
import json
import os
import re
import sys

import keras
import numpy as np

from keras_sagan.checks import check_choice, check_list, check_string
from keras_sagan.lazy import tf

STRATEGIES = ("auto", "none", "mirrored", "multi_worker", "tpu")
"""The names that `make_strategy` takes."""
_TPU_PATIENCE = 60.0  # Seconds to wait for a TPU's address to answer.
_EXIT_PATIENCE = 60.0  # Seconds that a worker that has ended waits for the others.


def make_strategy(name="auto", devices=None, tpu=None):
    """Makes the `tf.distribute` strategy to build and train a model under.

    Build the networks and the model, and compile it, inside `with strategy.scope():`, then call
    `fit` as ever. Must be called before TensorFlow has computed anything if the strategy is
    `"multi_worker"`. Other backends have no strategies: there `"none"` and `"auto"` give `None`.

    Args:
        name: `"none"` for one device; `"mirrored"` for the GPUs of one machine (or `devices`);
            `"multi_worker"` for the machines of the environment variable `TF_CONFIG`; `"tpu"`;
            or `"auto"`: a TPU where `tpu` is given, else the workers of `TF_CONFIG` where it has
            several, else `devices` or all GPUs where there are several, else one device. Defaults
            to `"auto"`.
        devices: List of device names for `"mirrored"`, such as `["GPU:0", "GPU:1"]`. Defaults to
            all GPUs.
        tpu: String, the TPU's name or address, `"local"` on a TPU VM.

    Returns:
        A `tf.distribute.Strategy`, or `None` on another backend than TensorFlow.

    Raises:
        ValueError: For an unknown name, devices that aren't there, a TPU that can't be found or
            doesn't answer within a minute, a malformed `TF_CONFIG`, `devices` or `tpu` for a
            strategy that has no use for them, or a strategy on another backend than TensorFlow.

    Example:

    >>> strategy = make_strategy("none")
    >>> strategy.num_replicas_in_sync
    1
    """
    name = check_choice("name", name, STRATEGIES, f"one of {STRATEGIES}")
    devices = check_list("devices", devices, optional=True)
    tpu = check_string("tpu", tpu, optional=True)
    backend = keras.backend.backend()
    if backend != "tensorflow":
        if name in ("auto", "none") and devices is None and tpu is None:
            return None
        raise ValueError(
            "`make_strategy` is for the TensorFlow backend. On JAX, call "
            "keras.distribution.set_distribution(keras.distribution.DataParallel()) before the "
            "model is built; on PyTorch, train on one device. "
            f"Received: name={name!r}, devices={devices}, tpu={tpu!r} on the {backend} backend"
        )
    if name == "auto":
        name = _resolve(devices, tpu)
    for argument, value, user in (("devices", devices, "mirrored"), ("tpu", tpu, "tpu")):
        if value is not None and name != user:
            raise ValueError(
                f'`{argument}` must be None but for the strategy "{user}". '
                f"Received: {argument}={value!r} for the strategy {name!r}"
            )
    if name == "tpu":
        return _tpu_strategy(tpu)
    if name == "multi_worker":
        return _multi_worker_strategy(os.environ.get("TF_CONFIG"))
    if name == "mirrored":
        _check_devices(devices)
        return tf.distribute.MirroredStrategy(devices)
    return tf.distribute.get_strategy()


def _check_devices(devices):
    """Raises for devices that aren't there, which TensorFlow would replace in silence."""

    def plain(name):
        return name.upper().rpartition("/")[2].removeprefix("DEVICE:")

    found = [plain(device.name) for device in tf.config.list_logical_devices()]
    if devices is None:
        return
    names = [plain(name) for name in devices if isinstance(name, str)]
    is_known = len(names) == len(devices) and set(names) <= set(found)
    if not names or not is_known or len(set(names)) < len(names):
        raise ValueError(
            f"`devices` must be a list of different names among {found}. "
            f"Received: devices={devices}"
        )


def _resolve(devices, tpu):
    if tpu is not None:
        return "tpu"
    if os.environ.get("TF_CONFIG") and check_tf_config(os.environ["TF_CONFIG"]) > 1:
        return "multi_worker"
    are_several = devices is not None or len(tf.config.list_logical_devices("GPU")) > 1
    return "mirrored" if are_several else "none"


def _tpu_strategy(tpu):
    try:
        resolver = tf.distribute.cluster_resolver.TPUClusterResolver(tpu=tpu)
        _wait_for_answers(resolver.cluster_spec())
        tf.config.experimental_connect_to_cluster(resolver)
        tf.tpu.experimental.initialize_tpu_system(resolver)
    except Exception as error:  # Each way a TPU can be missing has an error class of its own.
        raise ValueError(
            '`tpu` must be the name or address of a TPU that can be reached, or "local" on a TPU '
            f"VM. Received: tpu={tpu!r}, for which TensorFlow says: {error}"
        ) from error
    return tf.distribute.TPUStrategy(resolver)


def _multi_worker_strategy(tf_config):
    check_tf_config(tf_config)
    try:
        strategy = tf.distribute.MultiWorkerMirroredStrategy()
    except (RuntimeError, ValueError, tf.errors.OpError) as error:
        raise RuntimeError(
            "The workers of TF_CONFIG can't be joined. Call make_strategy before TensorFlow "
            "computes anything, with a free port of this machine and hosts that can be reached. "
            f"Received: TF_CONFIG={tf_config!r}, for which TensorFlow says: {error}"
        ) from error
    atexit.register(_meet, strategy)
    return strategy


def _meet(strategy):
    """Waits for the other workers when the process ends, unless an error ends it.

    TensorFlow reports a worker that ends some seconds before the others as crashed.
    """
    if hasattr(sys, "last_type"):
        return
    options = tf.distribute.experimental.CommunicationOptions(timeout_seconds=_EXIT_PATIENCE)

    def count_workers():
        return tf.distribute.get_replica_context().all_reduce("SUM", tf.ones(()), options)

    with contextlib.suppress(tf.errors.OpError):  # Another worker ended by an error.
        strategy.run(count_workers)


def _wait_for_answers(cluster_spec):
    """Raises if an address doesn't speak gRPC: TensorFlow would wait for it without end."""
    import grpc  # Comes with TensorFlow, which speaks it with TPUs; nobody else needs it.

    for address in [
        address for job in cluster_spec.jobs for address in cluster_spec.job_tasks(job)
    ]:
        with grpc.insecure_channel(address) as channel:
            try:
                grpc.channel_ready_future(channel).result(timeout=_TPU_PATIENCE)
            except grpc.FutureTimeoutError as error:
                raise TimeoutError(f"no answer from {address} in {_TPU_PATIENCE:g} s") from error


def check_tf_config(text):
    """Checks the value of the environment variable `TF_CONFIG`.

    Args:
        text: String, JSON such as
            `{"cluster": {"worker": ["a:1234", "b:1234"]}, "task": {"type": "worker", "index": 0}}`.

    Returns:
        Integer, the number of workers (a chief counts as one).

    Raises:
        ValueError: If it is missing, is not JSON, names no worker, an address twice, or a task
            that isn't one of the workers.
    """
    expected = (
        'TF_CONFIG must be JSON like {"cluster": {"worker": ["host:port", …]}, '
        '"task": {"type": "worker", "index": 0}}, with ports from 1 to 65535'
    )
    try:
        config = json.loads(text)
        cluster, task = config["cluster"], config["task"]
        index = int(task["index"])
        chiefs, workers = cluster.get("chief", []), cluster.get("worker", [])
        hosts = [*chiefs, *workers]
        own = cluster[task["type"]][index]
        is_valid = all(isinstance(job, list) for job in cluster.values()) and len(chiefs) < 2
        is_valid = is_valid and all(_is_address(x) for job in cluster.values() for x in job)
        is_valid = is_valid and str(task["index"]) == str(index) and index >= 0
        is_valid = is_valid and own in hosts and len(set(hosts)) == len(hosts)
    except (
        TypeError,
        ValueError,
        LookupError,
        AttributeError,
        OverflowError,
        RecursionError,
    ) as error:
        raise ValueError(
            f"{expected}. Received: TF_CONFIG={text!r} ({type(error).__name__}: {error})"
        ) from error
    if not is_valid:
        raise ValueError(f"{expected}. Received: TF_CONFIG={text!r}")
    return len(hosts)


def _is_address(host):
    """Whether a string is `host:port`."""
    match = re.fullmatch(r"[^\s:]+:([0-9]{1,5})|\[[^\s\]]+\]:([0-9]{1,5})", host)
    return match is not None and 1 <= int(match[1] or match[2]) <= 65535


def _has_workers(strategy):
    """Whether it is TensorFlow's strategy for several workers; `None` and Keras's aren't."""
    # Only TensorFlow's strategies have `extended`, and TensorFlow may not be installed.
    return hasattr(strategy, "extended") and isinstance(
        strategy, tf.distribute.MultiWorkerMirroredStrategy
    )


def is_chief(strategy):
    """Says whether this process is the only one, or the one that writes for all workers.

    Args:
        strategy: A `tf.distribute.Strategy`. Anything else counts as one process.

    Returns:
        Boolean.

    Example:

    >>> is_chief(make_strategy("none"))
    True
    """
    if not _has_workers(strategy):
        return True
    resolver = strategy.cluster_resolver
    if resolver.task_type in (None, "chief"):
        return True
    has_chief = "chief" in resolver.cluster_spec().jobs
    return resolver.task_type == "worker" and resolver.task_id == 0 and not has_chief


def check_workers_agree(strategy, **values):
    """Raises unless all workers of a strategy have the same values.

    Workers that do different things wait for each other without end, or train on in silence with
    what the first one has. Every worker must call this at the same point; with one it is nothing.

    Args:
        strategy: A `tf.distribute.Strategy`. Anything else counts as one process.
        **values: Anything that JSON holds, by the name to use in the message.

    Raises:
        ValueError: On every worker, with the first name whose values differ.

    Example:

    >>> check_workers_agree(make_strategy("none"), seed=1)
    """
    if not _has_workers(strategy):
        return
    texts = {name: json.dumps(value, default=str) for name, value in values.items()}
    # float32 as gradients are: what the workers' devices can exchange for sure.
    own = np.frombuffer((json.dumps(texts) + "\n").encode(), "uint8").astype("float32")
    try:
        parts = strategy.experimental_distribute_values_from_function(lambda _: tf.constant(own))
        gathered = strategy.gather(parts, axis=0)
    except tf.errors.OpError as error:
        raise RuntimeError(
            "The workers must do the same, each in its process: start them with the same command. "
            f"Received: a worker that did something else or ended, as TensorFlow says: {error}"
        ) from error
    gathered = strategy.experimental_local_results(gathered)[0].numpy()
    replicas = [json.loads(line) for line in gathered.astype("uint8").tobytes().splitlines()]
    local = strategy.num_replicas_in_sync // _count_workers(strategy)
    workers = replicas[::local]
    for name in values:
        said = [worker.get(name) for worker in workers]
        if len(set(said)) > 1:
            each = ", ".join(f"{value} on worker {i}" for i, value in enumerate(said))
            raise ValueError(
                f"`{name}` must be the same on all workers: start them with the same command and "
                f"the same files. Received: {name}={each}"
            )


def chief_decides(strategy, decision):
    """Returns on all workers what the chief has decided.

    Workers that compare figures of their own, which may differ in their last digits, would else do
    different things. Every worker must call this at the same point; with one it is nothing.

    Args:
        strategy: A `tf.distribute.Strategy`. Anything else counts as one process.
        decision: Boolean, this worker's.

    Returns:
        Boolean.

    Example:

    >>> chief_decides(make_strategy("none"), True)
    True
    """
    if not _has_workers(strategy):
        return decision
    own = tf.constant([float(decision and is_chief(strategy))])
    parts = strategy.experimental_distribute_values_from_function(lambda _: own)
    return bool(strategy.reduce("SUM", parts, axis=None).numpy()[0])


def _count_workers(strategy):
    spec = strategy.cluster_resolver.cluster_spec()
    return max(1, sum(spec.num_tasks(job) for job in spec.jobs if job in ("chief", "worker")))
