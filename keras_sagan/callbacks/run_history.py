import json
from collections.abc import Sequence
from pathlib import Path

import keras

from keras_sagan.checks import check_list, check_path
from keras_sagan.distribution import is_chief
from keras_sagan.whole_files import replace_file


class RunHistory(keras.callbacks.Callback):
    """Keeps the metrics of every epoch in a JSON file, across restarts of a run.

    Unlike the `History` that `fit` returns, this callback keeps the metrics from before a restart.
    To draw the metrics, pass `RunHistory.history` to `plot_curves`. Put this callback after all
    callbacks that add metrics to the logs, and before `TrainingCheckpoint`.

    Args:
        path: The JSON file; its folder is created if needed.
        evaluators: List of callbacks, such as `FIDEvaluator`, with a `name` and a `history` of
            pairs (epochs done, value). The callback restores each `history`, including values for
            epoch 0, from the file.

    Raises:
        ValueError: If an argument has the wrong type, or the file wasn't written by this callback.

    Example:
    ```python
    history = RunHistory("runs/first/history.json")
    model.fit(dataset, epochs=20, callbacks=[history, TrainingCheckpoint("runs/first")])
    plot_curves(history.history, "runs/first/curves.png")
    ```
    """

    def __init__(self, path: str | Path, evaluators: Sequence[keras.callbacks.Callback] = ()):
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
                "`path` must be a file that RunHistory wrote, or not exist: remove a damaged file. "
                f"Received: path={str(self.path)!r} ({type(error).__name__}: {error})"
            ) from error

    def on_train_begin(self, logs: dict | None = None) -> None:
        self._has_started = False

    def on_epoch_begin(self, epoch: int, logs: dict | None = None) -> None:
        if self._has_started:
            return
        self._has_started = True  # `on_train_begin` doesn't know the epoch at which a run resumes.
        kept = {name: _until(epoch, pairs) for name, pairs in self.history.items()}
        self.history = {name: pairs for name, pairs in kept.items() if pairs}
        for evaluator in self.evaluators:
            evaluator.history = _until(epoch, evaluator.history)

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        for name, value in (logs or {}).items():
            self._put(name, [(epoch + 1, value)])
        self.save()

    def save(self) -> None:
        """Writes the file, with the current values of the evaluators."""
        for evaluator in self.evaluators:
            self._put(evaluator.name, evaluator.history)
        # A model has `distribute_strategy` only on TensorFlow.
        if is_chief(getattr(self.model, "distribute_strategy", None)):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            text = json.dumps({"history": self.history}) + "\n"
            replace_file(self.path, lambda file: file.write(text.encode()))

    def _put(self, name, pairs):
        known = dict(self.history.get(name, [])) | {k: float(v) for k, v in pairs}
        if known:
            self.history[name] = sorted(known.items())


def _until(epoch, pairs):
    return [pair for pair in pairs if pair[0] <= epoch]
