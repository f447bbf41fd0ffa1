import json
from pathlib import Path

import keras

from keras_sagan.checks import check_list, check_path
from keras_sagan.distribution import is_chief
from keras_sagan.whole_files import replace_file


class RunHistory(keras.callbacks.Callback):
    """Keeps the metrics of every epoch in a JSON file, across restarts of a run.

    The `History` that `fit` returns starts again with each `fit`. This callback reads what an
    earlier part of the run has left in the file, and adds to it. `RunHistory.history` is what
    `plot_curves` takes. Put the callback after those that add to the logs and before
    `TrainingCheckpoint`.

    Args:
        path: String or path. The JSON file; its folder is made if it isn't there.
        evaluators: List of callbacks with a `name` and a `history` of pairs (epochs done, value),
            such as `FIDEvaluator`. Their values of epoch 0 aren't in any log. They get the values
            that the file has. Defaults to `()`.

    Raises:
        ValueError: If an argument is of the wrong type, or the file isn't one of this callback.

    Example:

    ```python
    history = RunHistory("runs/first/history.json")
    model.fit(dataset, epochs=20, callbacks=[history, TrainingCheckpoint("runs/first")])
    plot_curves(history.history, "runs/first/curves.png")
    ```
    """

    def __init__(self, path, evaluators=()):
        super().__init__()
        self.path = Path(check_path("path", path))
        self.evaluators = check_list("evaluators", evaluators)
        self.history = self._read()
        self._has_started = False
        for evaluator in self.evaluators:
            evaluator.history = list(self.history.get(evaluator.name, []))

    def _read(self):
        if not self.path.exists():
            return {}
        try:
            history = json.loads(self.path.read_text(encoding="utf-8"))["history"]
            return {
                str(name): [(int(epoch), float(value)) for epoch, value in pairs]
                for name, pairs in history.items()
            }
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise ValueError(
                "`path` must be a file that RunHistory wrote, or none: remove a damaged one. "
                f"Received: path={str(self.path)!r} ({type(error).__name__}: {error})"
            ) from error

    def on_train_begin(self, logs=None):
        self._has_started = False

    def on_epoch_begin(self, epoch, logs=None):
        if self._has_started:
            return
        # Only here is it known which epoch a resumed training starts with.
        self._has_started = True
        kept = {
            name: [pair for pair in pairs if pair[0] <= epoch]
            for name, pairs in self.history.items()
        }
        self.history = {name: pairs for name, pairs in kept.items() if pairs}
        for evaluator in self.evaluators:
            evaluator.history = [pair for pair in evaluator.history if pair[0] <= epoch]

    def on_epoch_end(self, epoch, logs=None):
        for name, value in (logs or {}).items():
            self._put(name, [(epoch + 1, value)])
        self.save()

    def save(self):
        """Writes the file, with the values that the evaluators have by now."""
        for evaluator in self.evaluators:
            self._put(evaluator.name, evaluator.history)
        # Keras's models have a strategy on TensorFlow alone.
        if not is_chief(getattr(self.model, "distribute_strategy", None)):
            return
        self.path.parent.mkdir(parents=True, exist_ok=True)
        text = json.dumps({"history": self.history}) + "\n"
        replace_file(self.path, lambda file: file.write(text.encode()))

    def _put(self, name, pairs):
        known = {**dict(self.history.get(name, [])), **{k: float(v) for k, v in pairs}}
        if known:
            self.history[name] = sorted(known.items())
