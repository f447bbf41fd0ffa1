"""Two processes of JAX, each of which is killed once, two that resume, and one alone.

    python jax_processes_target.py FOLDER

for `test_jax_processes.py`. As in `kill_target.py`, each is forked, so that Keras is imported once.
A process writes `state-INDEX.npz` and `told-INDEX.json`, then trains two epochs of `make_dataset`,
whose end is `ended-INDEX.json`. As one of two it does so again with checkpoints, and the second
process kills itself in the second epoch; the first ends by an error. When they resume, models of
other weights go on from there. A step later, the first process, which writes the checkpoints and
connects the processes, kills itself. They resume again, to `resumed-INDEX.json`.
"""

import hashlib
import json
import os
import signal
import socket
import sys
import time
from pathlib import Path

import backend_target
import keras
import numpy as np
import tiny_networks as tiny
from on_backends import devices

from keras_sagan import callbacks
from keras_sagan.callbacks.model_state import assign_state, read_state
from keras_sagan.data import make_dataset
from keras_sagan.distribution import check_workers_agree, chief_decides, is_chief, make_strategy

tiny.SHAPE = (8, 8, 3)  # Three channels, for pictures.
STEPS, BATCH, PROCESSES = 6, 8, 2
EPOCH = 3  # Steps.
KILLED_AT = {1: 4, 0: 5}  # The step at which each process kills itself.


class Share(keras.utils.PyDataset):
    """The images of a process, of each global batch."""

    def __init__(self, index, count=STEPS, bad=None, short=None):
        super().__init__()
        size = BATCH if index is None else BATCH // PROCESSES
        self.rows = slice((index or 0) * size, (index or 0) * size + size)
        self.count, self.bad, self.short = count, bad, short

    def __len__(self):
        return self.count

    def __getitem__(self, step):
        images, labels = tiny.images(BATCH, seed=step), tiny.labels(BATCH, seed=step)
        # As of `make_dataset`: a program for other dtypes would be compiled too.
        images = np.uint8(127.5 * (0.5 * images + 1.5))
        if step == self.bad:
            images = images * np.float32(np.nan)
        images, labels = images[self.rows], labels[self.rows]
        return (images[:2], labels[:2]) if step == self.short else (images, labels)


class Kill(keras.callbacks.Callback):
    def __init__(self, index):
        super().__init__()
        self.step = KILLED_AT[index]

    def on_train_batch_end(self, batch, logs=None):
        if int(self.model.steps.numpy()) == self.step:
            os.kill(os.getpid(), signal.SIGKILL)


def catches(number):
    """Whether a handler is installed for a signal, also by C++ code; `None` if it isn't known."""
    status = Path("/proc/self/status")
    lines = status.read_text().splitlines() if status.exists() else ()
    masks = [int(x.split()[1], 16) for x in lines if x.startswith("SigCgt")]
    return bool(masks[0] >> (number - 1) & 1) if masks else None


def train(model, *used):
    """Two epochs, and the bits that they end with."""
    images = ((tiny.images(30) + 1.0) * 127.0).astype("uint8")
    data = make_dataset(images, tiny.labels(30), BATCH, seed=2)
    arguments = {"epochs": 2, "steps_per_epoch": EPOCH, "verbose": 0, "callbacks": used}
    history = model.fit(data, **arguments).history
    digest = hashlib.sha256()
    for key, value in sorted(read_state(model).items()):
        digest.update(key.partition(":")[0].encode() + value.tobytes())
    return {"history": {name: x[-1] for name, x in history.items()}, "digest": digest.hexdigest()}


def build():
    model = tiny.build_small_sagan(d_steps=2, ema_momentum=0.9, seed=None)
    model.compile(**tiny.sgd(backend_target.RATE))
    return model


def main(folder, index=None, resume=None):
    strategy = make_strategy()
    index = None if index is None else int(index)
    checkpoint = callbacks.TrainingCheckpoint(folder / "run", every_steps=1)
    if resume:
        with strategy.scope():
            model = build()
        ended = train(model, checkpoint, *([Kill(0)] if (resume, index) == ("again", 0) else []))
        (folder / f"resumed-{index}.json").write_text(json.dumps(ended))
        return
    told = {"chief": is_chief(), "replicas": int(np.prod(strategy.device_mesh.shape))}
    told["catches_sigterm"] = catches(signal.SIGTERM)

    def attempt(name, function):
        try:
            told[name] = str(function())
        except Exception as error:
            told[name] = f"{type(error).__name__}: {error}"

    with strategy.scope():  # Without a seed: all have the first one's, or JAX would raise.
        model = build()
    told["seed"] = model.seed
    backend_target.give_known_weights(model)
    model.restart_average()
    model.seed = 7
    before = backend_target.state(model)
    drawn = callbacks.SampleGrid(folder / f"drawn-{index}", images_per_class=1)
    seen = [drawn, callbacks.RunHistory(folder / f"history-{index}.json")]
    history = model.fit(Share(index), shuffle=False, verbose=0, callbacks=seen).history
    told["history"] = {name: values[0] for name, values in history.items()}
    told["evaluated"] = model.evaluate(Share(index), verbose=0, return_dict=True)
    told["generated"] = model.generate(3, seed=0).tolist()
    backend_target.write(folder / f"state-{index}.npz", before, backend_target.state(model))
    model.steps.assign(0)
    start = read_state(model)
    if index is not None:
        arrays = tiny.images(8), tiny.labels(8)
        attempt("arrays", lambda: model.fit(*arrays))
        attempt("validation", lambda: model.fit(Share(index), validation_data=arrays))
        attempt("evaluate", lambda: model.evaluate(*arrays))
        attempt("agree", lambda: check_workers_agree(strategy, seed=5 + index))
        attempt("decides", lambda: chief_decides(strategy, index == 0))
        attempt("nan", lambda: model.fit(Share(index, bad=0 if index else None), shuffle=False))
        attempt("uneven", lambda: model.fit(Share(index, short=1), shuffle=False))
        keras.distribution.set_distribution(keras.distribution.DataParallel())
        attempt("cut by Keras", lambda: build().fit(Share(index)))
        keras.distribution.set_distribution(strategy)
    (folder / f"told-{index}.json").write_text(json.dumps(told))
    assign_state(model, model.seed, start)
    (folder / f"ended-{index}.json").write_text(json.dumps(train(model)))
    if index is not None:
        assign_state(model, model.seed, start)
        train(model, checkpoint, *([Kill(1)] if index == 1 else []))


def start(folder, *index, **environment):
    """Forks a process, whose output goes to a file, and returns its id."""
    process = os.fork()
    if process == 0:
        os.environ.update(environment)
        log = os.open(folder / f"log-{'-'.join(index) or None}", os.O_WRONLY | os.O_CREAT)
        os.dup2(log, 1), os.dup2(log, 2)
        main(folder, *index)
        sys.exit()
    return process


def start_two(folder, *arguments):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    names = {
        **devices(2),
        "KERAS_DISTRIBUTION_JOB_ADDRESSES": address,
        "KERAS_DISTRIBUTION_NUM_PROCESSES": "2",
    }
    return [
        start(folder, i, *arguments, **names, KERAS_DISTRIBUTION_PROCESS_ID=i) for i in ("0", "1")
    ]


def exit_codes(*processes):
    return [os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]) for process in processes]


def killed_and_left(killed, left):
    """The exit codes of two processes, and how many seconds the second took to notice."""
    codes, began = exit_codes(killed), time.monotonic()
    return [*codes, *exit_codes(left), time.monotonic() - began]


def run(folder):
    first, second = start_two(folder)
    killed = [killed_and_left(second, first)]
    first, second = start_two(folder, "again")
    killed.append(killed_and_left(first, second))
    (folder / "killed.json").write_text(json.dumps(killed))
    assert exit_codes(*start_two(folder, "resume"), start(folder)) == [0, 0, 0]


if __name__ == "__main__":
    run(Path(sys.argv[1]))
