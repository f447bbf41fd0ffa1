"""The metrics of a run in a file: across restarts, and what is refused."""

import json

import pytest

from keras_sagan.callbacks import RunHistory


class Evaluator:
    """What `RunHistory` asks of an evaluator."""

    name = "fid_1k"

    def __init__(self):
        self.history = []


def train(path, epochs, evaluator, scale=1.0):
    """What `fit` does with a callback in some epochs, each with a loss and a distance."""
    callback = RunHistory(path, [evaluator])
    callback.on_train_begin()
    for epoch in epochs:
        if epoch == 0:
            evaluator.history.append((0, 9.0))
        callback.on_epoch_begin(epoch)
        evaluator.history.append((epoch + 1, scale * epoch))
        callback.on_epoch_end(epoch, {"d_loss": scale * epoch})
    return callback


def test_a_resumed_run_has_all_epochs(tmp_path):
    path = tmp_path / "new" / "history.json"
    train(path, range(0, 2), Evaluator())
    evaluator = Evaluator()
    callback = train(path, range(2, 4), evaluator)
    expected = {
        "d_loss": [(1, 0.0), (2, 1.0), (3, 2.0), (4, 3.0)],
        "fid_1k": [(0, 9.0), (1, 0.0), (2, 1.0), (3, 2.0), (4, 3.0)],
    }
    assert callback.history == expected
    assert evaluator.history == expected["fid_1k"]
    stored = json.loads(path.read_text())["history"]
    assert {name: [tuple(x) for x in pairs] for name, pairs in stored.items()} == expected
    assert sorted(p.name for p in path.parent.iterdir()) == ["history.json"]


def test_epochs_that_are_trained_again_replace_the_old_ones(tmp_path):
    """The newest checkpoints may have been removed, or the whole run started anew."""
    path = tmp_path / "history.json"
    train(path, range(0, 5), Evaluator())
    callback = train(path, range(1, 3), Evaluator(), scale=10.0)
    assert callback.history["d_loss"] == [(1, 0.0), (2, 10.0), (3, 20.0)]
    assert callback.history["fid_1k"] == [(0, 9.0), (1, 0.0), (2, 10.0), (3, 20.0)]


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"history": 3}', '{"history": {"a": [[1]]}}', '{"history": {"a": 1}}']
)
def test_another_file_is_refused_by_name(text, tmp_path):
    path = tmp_path / "history.json"
    path.write_text(text)
    with pytest.raises(ValueError, match="`path` must be a file that RunHistory wrote.*history"):
        RunHistory(path)
    assert path.read_text() == text
