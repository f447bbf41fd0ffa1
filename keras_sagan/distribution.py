"""Strategies of TensorFlow and distributions of JAX by name, for one process or several."""

import atexit
import contextlib
import json
import os
import random
import re
import sys
from typing import Any

import keras
import numpy as np

from keras_sagan.checks import check_choice, check_string
from keras_sagan.lazy import tf

STRATEGIES = ("auto", "none", "mirrored", "multi_worker", "tpu")
"""The names that `make_strategy` takes."""
_TPU_PATIENCE = 60.0  # Seconds to wait for a TPU's address to answer.
_EXIT_PATIENCE = 60.0  # Seconds that a worker that has ended waits for the others.
# Seconds after which JAX takes a silent process for dead (its default is 100), and that a process
# that has ended waits for the others (its default is 300: the first one may write for longer).
_JAX_PATIENCE = {"heartbeat_timeout_seconds": 30, "shutdown_timeout_seconds": 3600}
# Arguments of `jax.distributed.initialize`, and Keras's environment variables for them.
_PROCESSES = {
    "coordinator_address": "KERAS_DISTRIBUTION_JOB_ADDRESSES",
    "num_processes": "KERAS_DISTRIBUTION_NUM_PROCESSES",
    "process_id": "KERAS_DISTRIBUTION_PROCESS_ID",
}
_TF_CONFIG = (
    'TF_CONFIG must be JSON like {"cluster": {"worker": ["host:port", …]}, '
    '"task": {"type": "worker", "index": 0}}, with ports from 1 to 65535'
)


def make_strategy(name: str = "auto", tpu: str | None = None) -> Any:
    """Makes what a model is built and trained under: by default, on all devices.

    Build the networks and the model, and compile it, inside `with strategy.scope():`, then call
    `fit` as usual. With several processes, call this before the backend computes anything.

    TensorFlow takes its processes from the environment variable `TF_CONFIG`. JAX takes them from
    the variables of `keras.distribution.initialize`, or from Slurm and TPUs. It sets the
    distribution for the whole program, gives all processes the same seed, and notices a process
    that dies after half a minute. PyTorch trains on one device.

    Args:
        name: `"none"` for one device; `"mirrored"` for the devices of this machine;
            `"multi_worker"` for several processes; `"tpu"` for TensorFlow's `TPUStrategy` (JAX
            needs no name for a TPU); or `"auto"`: a TPU if `tpu` is given, else the processes that
            the environment names, else all GPUs (on JAX, all devices). Defaults to `"auto"`.
        tpu: String, the TPU's name or address, `"local"` on a TPU VM. TensorFlow only.

    Returns:
        A `tf.distribute.Strategy` on TensorFlow, a `keras.distribution.DataParallel` on JAX,
        `None` on PyTorch.

    Raises:
        ValueError: For an unknown name, a TPU that can't be found or doesn't answer within a
            minute, a malformed `TF_CONFIG`, `tpu` for a strategy that doesn't use it, or a strategy
            that the backend doesn't have.
        RuntimeError: If the processes can't be joined.

    Example:

    >>> strategy = make_strategy("none")
    >>> strategy.num_replicas_in_sync
    1
    """
    name = check_choice("name", name, STRATEGIES, f"one of {STRATEGIES}")
    tpu = check_string("tpu", tpu, optional=True)
    backend = keras.backend.backend()
    if backend == "torch":
        if name in ("auto", "none") and tpu is None:
            return None
        raise ValueError(
            "`make_strategy` is for TensorFlow and JAX: PyTorch trains on one device. "
            f"Received: name={name!r}, tpu={tpu!r}"
        )
    if backend == "jax" and (tpu is not None or name == "tpu"):
        raise ValueError(
            "`make_strategy` needs no name for a TPU on JAX, which finds all of its chips: call it "
            f'without arguments, or with "multi_worker" on several hosts. Received: name={name!r}, '
            f"tpu={tpu!r}"
        )
    name = _resolve(tpu) if name == "auto" else name
    if tpu is not None and name != "tpu":
        raise ValueError(
            '`tpu` must be None except for the strategy "tpu". '
            f"Received: tpu={tpu!r} for the strategy {name!r}"
        )
    if backend == "jax":
        return _jax_distribution(name)
    if name == "tpu":
        return _tpu_strategy(tpu)
    if name == "multi_worker":
        return _multi_worker_strategy(os.environ.get("TF_CONFIG"))
    return tf.distribute.MirroredStrategy() if name == "mirrored" else tf.distribute.get_strategy()


def _resolve(tpu):
    """The name that `"auto"` stands for."""
    if _is_jax():
        is_told = any(variable in os.environ for variable in _PROCESSES.values())
        is_told = is_told or _jax().distributed.is_initialized()
        return "multi_worker" if is_told else "mirrored"
    if tpu is not None:
        return "tpu"
    if os.environ.get("TF_CONFIG") and check_tf_config(os.environ["TF_CONFIG"]) > 1:
        return "multi_worker"
    return "mirrored" if len(tf.config.list_logical_devices("GPU")) > 1 else "none"


# JAX


def _is_jax():
    return keras.backend.backend() == "jax"


def _jax():
    import jax  # On other backends it needn't be installed.
    import jax.experimental.multihost_utils

    return jax


def _jax_distribution(name):
    """Sets and returns a `DataParallel`, after joining the processes for `"multi_worker"`."""
    used = None
    if name == "multi_worker":
        _join_processes()
    else:
        used = [f"{device.platform}:{device.id}".lower() for device in _jax().local_devices()]
        used = used[:1] if name == "none" else used
    distribution = keras.distribution.DataParallel(devices=used, auto_shard_dataset=False)
    keras.distribution.set_distribution(distribution)
    return distribution


def _join_processes():
    given = {key: os.environ[x] for key, x in _PROCESSES.items() if x in os.environ}
    if not _jax().distributed.is_initialized():
        try:
            parsed = {key: text.split(",")[0] for key, text in given.items()}  # The first address.
            for key in given.keys() - {"coordinator_address"}:
                parsed[key] = int(given[key])
            _jax().distributed.initialize(**parsed, **_JAX_PATIENCE)
        except (RuntimeError, ValueError, TypeError) as error:
            raise RuntimeError(
                "The processes can't be joined. Set KERAS_DISTRIBUTION_JOB_ADDRESSES to "
                "host:port of the first, KERAS_DISTRIBUTION_NUM_PROCESSES and "
                "KERAS_DISTRIBUTION_PROCESS_ID, and call make_strategy before JAX computes "
                f"anything. Received: {given}, for which JAX says: {error}"
            ) from error
        atexit.register(_leave)
    # All start from the weights of the first, and draw its seeds.
    keras.utils.set_random_seed(int(_broadcast(np.uint32(random.getrandbits(32)))))


def _leave():
    """Ends the process at once after an error: JAX would wait for the others, which wait too."""
    if hasattr(sys, "last_type"):
        sys.stdout.flush(), sys.stderr.flush()
        os._exit(1)


def _broadcast(value):
    return _jax().experimental.multihost_utils.broadcast_one_to_all(value)


# TensorFlow


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


def _wait_for_answers(cluster_spec):
    """Raises if an address doesn't speak gRPC: TensorFlow would wait for it forever."""
    import grpc  # It comes with TensorFlow, which uses it for TPUs.

    jobs = cluster_spec.jobs
    for address in [address for job in jobs for address in cluster_spec.job_tasks(job)]:
        with grpc.insecure_channel(address) as channel:
            try:
                grpc.channel_ready_future(channel).result(timeout=_TPU_PATIENCE)
            except grpc.FutureTimeoutError as error:
                raise TimeoutError(f"no answer from {address} in {_TPU_PATIENCE:g} s") from error


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
    """Waits for the other workers when the process ends, unless it ends by an error.

    TensorFlow reports a worker that ends some seconds before the others as crashed.
    """
    if hasattr(sys, "last_type"):
        return
    options = tf.distribute.experimental.CommunicationOptions(timeout_seconds=_EXIT_PATIENCE)

    def count_workers():
        return tf.distribute.get_replica_context().all_reduce("SUM", tf.ones(()), options)

    with contextlib.suppress(tf.errors.OpError):  # Another worker ended by an error.
        strategy.run(count_workers)


def check_tf_config(text: str) -> int:
    """Checks the value of the environment variable `TF_CONFIG`.

    Args:
        text: String, JSON such as
            `{"cluster": {"worker": ["a:1234", "b:1234"]}, "task": {"type": "worker", "index": 0}}`.

    Returns:
        Integer, the number of workers (a chief counts as one).

    Raises:
        ValueError: If it is missing or isn't JSON, or if it names no worker, an address twice, or
            a task that isn't one of the workers.
    """
    cause = None
    try:
        config = json.loads(text)
        cluster, task = config["cluster"], config["task"]
        index, jobs = int(task["index"]), list(cluster.values())
        chiefs, workers = cluster.get("chief", []), cluster.get("worker", [])
        hosts = [*chiefs, *workers]
        is_valid = (
            all(isinstance(job, list) for job in jobs)
            and all(_is_address(host) for job in jobs for host in job)
            and len(chiefs) < 2
            and len(set(hosts)) == len(hosts)
            and str(task["index"]) == str(index)
            and index >= 0
            and cluster[task["type"]][index] in hosts
        )
    except Exception as error:  # JSON may hold anything instead of these.
        is_valid, cause = False, error
    if not is_valid:
        why = f" ({type(cause).__name__}: {cause})" if cause else ""
        raise ValueError(f"{_TF_CONFIG}. Received: TF_CONFIG={text!r}{why}") from cause
    return len(hosts)


def _is_address(host):
    match = re.fullmatch(r"(?:[^\s:]+|\[[^\s\]]+\]):([0-9]{1,5})", host)
    return match is not None and 1 <= int(match[1]) <= 65535


# Several processes


def _has_workers(strategy):
    if _is_jax():
        return _jax().process_count() > 1
    # Only TensorFlow's strategies have `extended`, and TensorFlow may not be installed.
    return hasattr(strategy, "extended") and isinstance(
        strategy, tf.distribute.MultiWorkerMirroredStrategy
    )


def is_chief(strategy: Any = None) -> bool:
    """Whether this process is the only one, or the one that writes for all workers.

    Args:
        strategy: A `tf.distribute.Strategy`. On TensorFlow, anything else counts as one process;
            JAX knows its processes without it.

    Example:

    >>> is_chief(make_strategy("none"))
    True
    """
    if not _has_workers(strategy):
        return True
    if _is_jax():
        return _jax().process_index() == 0
    resolver = strategy.cluster_resolver
    if resolver.task_type == "worker":
        return resolver.task_id == 0 and "chief" not in resolver.cluster_spec().jobs
    return resolver.task_type in (None, "chief")


def check_workers_agree(strategy: Any, **values) -> None:
    """Raises unless all workers of a strategy have the same values.

    Workers that do different things would wait for each other forever, or train silently with what
    the first one has. Every worker must call this at the same point. With one worker it does
    nothing.

    Args:
        strategy: As in `is_chief`.
        **values: Anything that JSON holds, by the name to use in the message.

    Raises:
        ValueError: On every worker, with the first name whose values differ.
        RuntimeError: If a worker ended or did something else.

    Example:

    >>> check_workers_agree(make_strategy("none"), seed=1)
    """
    if not _has_workers(strategy):
        return
    text = json.dumps({name: json.dumps(value, default=str) for name, value in values.items()})
    lost_worker = _jax().errors.JaxRuntimeError if _is_jax() else tf.errors.OpError
    try:
        workers = [json.loads(text) for text in _gather(strategy, text)]
    except lost_worker as error:
        raise RuntimeError(
            "The workers must do the same, each in its process: start them with the same command. "
            f"Received: a worker that did something else or ended; the error says: {error}"
        ) from error
    for name in values:
        found = [worker.get(name) for worker in workers]
        if len(set(found)) > 1:
            each = ", ".join(f"{value} on worker {i}" for i, value in enumerate(found))
            raise ValueError(
                f"`{name}` must be the same on all workers: start them with the same command and "
                f"the same files. Received: {name}={each}"
            )


def _gather(strategy, text):
    """The texts of all workers."""
    own = np.frombuffer(text.encode(), "uint8")
    if _is_jax():
        gather = _jax().experimental.multihost_utils.process_allgather
        longest = int(gather(np.int32(len(own))).max())
        rows = gather(np.pad(own, (0, longest - len(own)), constant_values=ord(" ")))
        return [row.tobytes().decode() for row in rows]
    # float32 like gradients, which the workers' devices can surely exchange.
    own = np.append(own, ord("\n")).astype("float32")
    parts = strategy.experimental_distribute_values_from_function(lambda _: tf.constant(own))
    local = strategy.experimental_local_results(strategy.gather(parts, axis=0))
    # Each replica of a worker has said the same.
    return local[0].numpy().astype("uint8").tobytes().decode().splitlines()[:: len(local)]


def chief_decides(strategy: Any, decision: bool) -> bool:
    """Returns the chief's decision on all workers.

    Workers that decide by numbers of their own, which may differ in their last digits, could do
    different things. Every worker must call this at the same point. With one worker it returns
    `decision`.

    Args:
        strategy: As in `is_chief`.
        decision: Boolean, this worker's.

    Example:

    >>> chief_decides(make_strategy("none"), True)
    True
    """
    if not _has_workers(strategy):
        return decision
    if _is_jax():
        return bool(_broadcast(np.bool_(decision)))
    own = tf.constant([float(decision and is_chief(strategy))])
    parts = strategy.experimental_distribute_values_from_function(lambda _: own)
    return bool(strategy.reduce("SUM", parts, axis=None).numpy()[0])
