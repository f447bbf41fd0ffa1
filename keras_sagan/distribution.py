"""Makes TensorFlow strategies and JAX distributions, for one or several processes."""

import atexit
import contextlib
import json
import os
import random
import re
import sys
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np

from keras_sagan.checks import check_choice, check_list, check_string
from keras_sagan.lazy import tf

__all__ = [
    *("STRATEGIES", "make_strategy", "check_tf_config", "is_chief", "check_workers_agree"),
    "chief_decides",
]
STRATEGIES = ("auto", "none", "mirrored", "multi_worker", "tpu")
"""The names that `make_strategy` accepts."""
_TPU_PATIENCE = 60.0  # The maximum time to wait for a TPU to respond, in seconds.

_EXIT_PATIENCE = 60.0  # The maximum time that a finished worker waits for the others, in seconds.

# A silent process counts as dead after 30 seconds (JAX's default is 100). A finished process waits
# an hour (JAX's default is 300 seconds), because the first process may still write files.
_JAX_PATIENCE = {"heartbeat_timeout_seconds": 30, "shutdown_timeout_seconds": 3600}
# Maps arguments of `jax.distributed.initialize` to Keras's environment variables.
_PROCESSES = {
    "coordinator_address": "KERAS_DISTRIBUTION_JOB_ADDRESSES",
    "num_processes": "KERAS_DISTRIBUTION_NUM_PROCESSES",
    "process_id": "KERAS_DISTRIBUTION_PROCESS_ID",
}
_TF_CONFIG = (
    'TF_CONFIG must be JSON like {"cluster": {"worker": ["host:port", …]}, '
    '"task": {"type": "worker", "index": 0}}, with ports from 1 to 65535'
)


def make_strategy(
    name: str = "auto", devices: Sequence[str] | None = None, tpu: str | None = None
) -> Any:
    """Makes the strategy for building and training a model; by default, it uses all devices.

    Build the networks and the model inside `with strategy.scope():`, and compile the model there.
    Then call `fit` as usual. With several processes, call `make_strategy` before any computation.

    TensorFlow reads the list of processes from the environment variable `TF_CONFIG`. JAX reads this
    list from the environment variables of `keras.distribution.initialize`, or from Slurm or the
    TPU. On JAX, the distribution is set for the whole program, all processes use the same seed, and
    a dead process is detected after 30 seconds. PyTorch trains on one device.

    Args:
        name: `"none"` uses one device. `"mirrored"` uses all devices of this machine, or those in
            `devices`. `"multi_worker"` uses several processes. `"tpu"` uses TensorFlow's
            `TPUStrategy`; on JAX, TPUs need no special name. `"auto"` uses a TPU if `tpu` is given,
            or several processes if the environment specifies them. If neither applies, `"auto"`
            uses `devices` or all GPUs (on JAX, all devices).
        devices: List of device names for `"mirrored"`, such as `["GPU:0", "GPU:1"]` on TensorFlow
            and `["gpu:0", "gpu:1"]` on JAX. Defaults to all devices of this machine.
        tpu: String, the TPU's name or address, or `"local"` on a TPU VM. TensorFlow only.

    Returns:
        A `tf.distribute.Strategy` on TensorFlow, a `keras.distribution.DataParallel` on JAX, or
        `None` on PyTorch.

    Raises:
        ValueError: If the name is unknown, devices don't exist, a TPU can't be found or doesn't
            answer within a minute, `TF_CONFIG` is malformed, `devices` or `tpu` is given for a
            strategy that doesn't use it, or the backend doesn't support the strategy.
        RuntimeError: If the processes can't connect to each other.

    Example:
    >>> strategy = make_strategy("none")
    >>> strategy.num_replicas_in_sync
    1
    """
    name = check_choice("name", name, STRATEGIES, f"one of {STRATEGIES}")
    devices = check_list("devices", devices, optional=True)
    tpu = check_string("tpu", tpu, optional=True)
    backend = keras.backend.backend()
    if backend == "torch":
        if name in ("auto", "none") and devices is None and tpu is None:
            return None
        raise ValueError(
            "`make_strategy` is for TensorFlow and JAX: PyTorch trains on one device. "
            f"Received: name={name!r}, devices={devices}, tpu={tpu!r}"
        )
    if backend == "jax" and (tpu is not None or name == "tpu"):
        raise ValueError(
            "`make_strategy` needs no name for a TPU on JAX, which finds all of its chips: call it "
            f'without arguments, or with "multi_worker" on several hosts. Received: name={name!r}, '
            f"tpu={tpu!r}"
        )
    name = _resolve(devices, tpu) if name == "auto" else name
    for argument, value, user in (("devices", devices, "mirrored"), ("tpu", tpu, "tpu")):
        if value is not None and name != user:
            raise ValueError(
                f'`{argument}` must be None except for the strategy "{user}". '
                f"Received: {argument}={value!r} for the strategy {name!r}"
            )
    if backend == "jax":
        return _jax_distribution(name, devices)
    if name == "tpu":
        return _tpu_strategy(tpu)
    if name == "multi_worker":
        return _multi_worker_strategy(os.environ.get("TF_CONFIG"))
    if name == "mirrored":
        _check_devices(devices, [_plain(x.name) for x in tf.config.list_logical_devices()])
        return tf.distribute.MirroredStrategy(devices)
    return tf.distribute.get_strategy()


def _resolve(devices, tpu):
    """Returns the name of the strategy that `"auto"` selects."""
    if _is_jax():
        is_told = any(variable in os.environ for variable in _PROCESSES.values())
        are_several = devices is None and (is_told or _jax().distributed.is_initialized())
        return "multi_worker" if are_several else "mirrored"
    if tpu is not None:
        return "tpu"
    if os.environ.get("TF_CONFIG") and check_tf_config(os.environ["TF_CONFIG"]) > 1:
        return "multi_worker"
    are_several = devices is not None or len(tf.config.list_logical_devices("GPU")) > 1
    return "mirrored" if are_several else "none"


def _check_devices(devices, found):
    """Raises an error for unknown or repeated devices, which TensorFlow would silently replace."""
    if devices is None:
        return
    names = [_plain(name) for name in devices if isinstance(name, str)]
    is_known = len(names) == len(devices) and set(names) <= set(found)
    if not names or not is_known or len(set(names)) < len(names):
        raise ValueError(
            f"`devices` must be a list of different names among {found}. "
            f"Received: devices={devices}"
        )


def _plain(name):
    """Returns the last part of a device's full name, such as `GPU:0`."""
    return name.upper().rpartition("/")[2].removeprefix("DEVICE:")


# Functions for JAX


def _is_jax():
    return keras.backend.backend() == "jax"


def _jax():
    import jax
    import jax.experimental.multihost_utils

    return jax


def _jax_distribution(name, devices):
    """Sets and returns a `DataParallel`; for `"multi_worker"`, connects the processes first."""
    used = None
    if name == "multi_worker":
        _join_processes()
    else:
        found = [f"{device.platform}:{device.id}" for device in _jax().local_devices()]
        _check_devices(devices, [device.upper() for device in found])
        used = [device.lower() for device in devices or (found[:1] if name == "none" else found)]
    distribution = keras.distribution.DataParallel(devices=used, auto_shard_dataset=False)
    keras.distribution.set_distribution(distribution)
    return distribution


def _join_processes():
    given = {key: os.environ[x] for key, x in _PROCESSES.items() if x in os.environ}
    if not _jax().distributed.is_initialized():
        try:
            parsed = {key: text.split(",")[0] for key, text in given.items()}
            for key in given.keys() - {"coordinator_address"}:
                parsed[key] = int(given[key])
            # Otherwise, JAX would catch SIGTERM, and SIGTERM wouldn't stop the process.
            _jax().config.update("jax_enable_preemption_service", False)
            _jax().distributed.initialize(**parsed, **_JAX_PATIENCE)
        except (RuntimeError, ValueError, TypeError) as error:
            raise RuntimeError(
                "The processes can't be joined. Set KERAS_DISTRIBUTION_JOB_ADDRESSES to "
                "host:port of the first, KERAS_DISTRIBUTION_NUM_PROCESSES and "
                "KERAS_DISTRIBUTION_PROCESS_ID, and call make_strategy before JAX computes "
                f"anything. Received: {given}, for which JAX says: {error}"
            ) from error
        atexit.register(_leave)
    # All processes start from the same weights and draw the same seeds as the first process.
    keras.utils.set_random_seed(gather(None, random.getrandbits(32))[0])


def _leave():
    """Ends this process after an error; otherwise, all processes would wait forever."""
    if hasattr(sys, "last_type"):
        sys.stdout.flush(), sys.stderr.flush()
        os._exit(1)


# Functions for TensorFlow


def _tpu_strategy(tpu):
    try:
        resolver = tf.distribute.cluster_resolver.TPUClusterResolver(tpu=tpu)
        _wait_for_answers(resolver.cluster_spec())
        tf.config.experimental_connect_to_cluster(resolver)
        tf.tpu.experimental.initialize_tpu_system(resolver)
    except Exception as error:  # A missing TPU causes all kinds of errors.
        raise ValueError(
            '`tpu` must be the name or address of a TPU that can be reached, or "local" on a TPU '
            f"VM. Received: tpu={tpu!r}, for which TensorFlow says: {error}"
        ) from error
    return tf.distribute.TPUStrategy(resolver)


def _wait_for_answers(cluster_spec):
    """Raises an error if a server doesn't respond over gRPC; TensorFlow would wait forever."""
    import grpc  # TensorFlow installs grpc, which it uses for TPUs.

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
    """Waits for the other workers at exit; TensorFlow would report an early exit as a crash."""
    if hasattr(sys, "last_type"):
        return
    options = tf.distribute.experimental.CommunicationOptions(timeout_seconds=_EXIT_PATIENCE)

    def count_workers():
        return tf.distribute.get_replica_context().all_reduce("SUM", tf.ones(()), options)

    with contextlib.suppress(tf.errors.OpError):  # Another worker may have failed.
        strategy.run(count_workers)


def check_tf_config(text: str) -> int:
    """Checks the value of the environment variable `TF_CONFIG`, and returns the number of workers.

    Args:
        text: String, JSON such as
            `{"cluster": {"worker": ["a:1234", "b:1234"]}, "task": {"type": "worker", "index": 0}}`.
            A chief counts as a worker.

    Raises:
        ValueError: If the value is missing or isn't JSON, lists no worker, lists an address twice,
            or has a task that isn't one of the workers.
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
    except Exception as error:  # Unexpected JSON causes all kinds of errors.
        is_valid, cause = False, error
    if not is_valid:
        why = f" ({type(cause).__name__}: {cause})" if cause else ""
        raise ValueError(f"{_TF_CONFIG}. Received: TF_CONFIG={text!r}{why}") from cause
    return len(hosts)


def _is_address(host):
    match = re.fullmatch(r"(?:[^\s:]+|\[[^\s\]]+\]):([0-9]{1,5})", host)
    return match is not None and 1 <= int(match[1]) <= 65535


# Functions for multiple processes


def is_multi_worker(strategy: Any) -> bool:
    """Returns whether this process is one of several workers, each with its share of the data."""
    if _is_jax():
        return _jax().process_count() > 1
    # Only TensorFlow's strategies have `extended`, and TensorFlow may not be installed.
    return hasattr(strategy, "extended") and isinstance(
        strategy, tf.distribute.MultiWorkerMirroredStrategy
    )


def is_chief(strategy: Any = None) -> bool:
    """Returns whether this process should write files, because it is the chief or the only process.

    `strategy` is a `tf.distribute.Strategy`. On TensorFlow, any other value means one process. JAX
    ignores `strategy`.

    Example:
    >>> is_chief(make_strategy("none"))
    True
    """
    if not is_multi_worker(strategy):
        return True
    if _is_jax():
        return _jax().process_index() == 0
    resolver = strategy.cluster_resolver
    if resolver.task_type == "worker":
        return resolver.task_id == 0 and "chief" not in resolver.cluster_spec().jobs
    return resolver.task_type in (None, "chief")


def check_workers_agree(strategy: Any, **values) -> None:
    """Raises an error unless all workers of a strategy have the same values.

    Without this check, workers with different settings would wait for each other forever, or
    silently train with the settings of the first worker. Every worker must call this function at
    the same point, with JSON-serializable values. With one worker, the function does nothing.

    Raises:
        ValueError: If values differ between workers. Every worker raises this error, which contains
            the name of the first value that differs.
        RuntimeError: If a worker ended or didn't call this function.

    Example:
    >>> check_workers_agree(make_strategy("none"), seed=1)
    """
    if not is_multi_worker(strategy):
        return
    own = {name: json.dumps(value, default=str) for name, value in values.items()}
    lost_worker = _jax().errors.JaxRuntimeError if _is_jax() else tf.errors.OpError
    try:
        workers = gather(strategy, own)
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


def gather(strategy: Any, value: Any) -> list:
    """Returns a list of the JSON-serializable values of all workers, in their order.

    The first value is the chief's. Every worker must call this function at the same point.
    """
    own = np.frombuffer(json.dumps(value).encode(), "uint8")
    if _is_jax():
        allgather = _jax().experimental.multihost_utils.process_allgather
        longest = int(allgather(np.int32(len(own))).max())
        rows = allgather(np.pad(own, (0, longest - len(own)), constant_values=ord(" ")))
        return [json.loads(row.tobytes()) for row in rows]
    # Send the text as float32, the dtype of gradients, because every `gather` supports float32.
    own = np.append(own, ord("\n")).astype("float32")
    parts = strategy.experimental_distribute_values_from_function(lambda _: tf.constant(own))
    local = strategy.experimental_local_results(strategy.gather(parts, axis=0))
    # All replicas of a worker send the same text, so keep one text per worker.
    texts = local[0].numpy().astype("uint8").tobytes().splitlines()[:: len(local)]
    return [json.loads(text) for text in texts]


def chief_decides(strategy: Any, decision: bool) -> bool:
    """Returns the chief's `decision` on every worker.

    Values can differ slightly between workers, so separate decisions might differ too. Every worker
    must call this function at the same point.

    Example:
    >>> chief_decides(make_strategy("none"), True)
    True
    """
    if not is_multi_worker(strategy):
        return decision
    return gather(strategy, bool(decision))[0]
