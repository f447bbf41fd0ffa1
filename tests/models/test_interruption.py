"""A Ctrl-C waits for the end of a step."""

import signal
import threading

import numpy as np
import pytest

from keras_sagan.models.sagan import interrupted_at_end
from tests.reference.tiny_networks import CLASSES, SHAPE, build_sagan


@pytest.fixture(autouse=True)
def default_handler():
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    signal.signal(signal.SIGINT, before)


def test_it_waits_for_the_end():
    done = []

    @interrupted_at_end
    def work():
        signal.raise_signal(signal.SIGINT)
        done.append(1)

    with pytest.raises(KeyboardInterrupt):
        work()
    assert done == [1]


def test_the_second_does_not_wait():
    done = []

    @interrupted_at_end
    def work():
        signal.raise_signal(signal.SIGINT)
        done.append(1)
        signal.raise_signal(signal.SIGINT)
        done.append(2)

    with pytest.raises(KeyboardInterrupt):
        work()
    assert done == [1]


def test_results_and_errors_pass():
    assert interrupted_at_end(lambda x, y: x + y)(1, y=2) == 3
    with pytest.raises(ZeroDivisionError):
        interrupted_at_end(lambda: 1 / 0)()


def test_handlers_of_the_user_stay_in_charge():
    seen = []
    signal.signal(signal.SIGINT, lambda number, frame: seen.append(number))
    interrupted_at_end(lambda: signal.raise_signal(signal.SIGINT))()
    assert seen == [signal.SIGINT]
    signal.signal(signal.SIGINT, signal.default_int_handler)


def test_it_works_in_other_threads():
    results = []
    thread = threading.Thread(target=lambda: results.append(interrupted_at_end(lambda: 7)()))
    thread.start()
    thread.join()
    assert results == [7]


def test_fit_ends_with_whole_steps():
    model = build_sagan()
    model.compile(run_eagerly=True)
    step = model.train_step

    def interrupted_step(data):
        signal.raise_signal(signal.SIGINT)
        return step(data)

    model.train_step = interrupted_step
    labels = np.arange(12) % CLASSES
    with pytest.raises(KeyboardInterrupt):
        model.fit(np.zeros((12, *SHAPE), "float32"), labels, batch_size=4, verbose=0)
    assert int(model.steps) == int(model.optimizer.iterations) == 1
