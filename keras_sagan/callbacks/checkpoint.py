import concurrent.futures
import warnings
from pathlib import Path

import keras

from keras_sagan.callbacks import model_state
from keras_sagan.callbacks.best_checkpoint import BestCheckpoint
from keras_sagan.callbacks.checkpoint_files import CheckpointFiles, check_directory
from keras_sagan.callbacks.model_state import steps_of
from keras_sagan.checks import check_boolean, check_integer
from keras_sagan.data.position import check_epoch, position_data
from keras_sagan.distribution import check_workers_agree, chief_decides, is_chief


class TrainingCheckpoint(keras.callbacks.Callback):
    """Saves the full state of a training run, and resumes the run from the newest checkpoint.

    A checkpoint contains both networks (including batch statistics and `vector_u`), the averaged
    generator, both optimizers (including slots and loss scales), the seed and the states of seed
    generators, the step, the position in the epoch, and the running sums of the epoch's metrics. On
    a CPU, a run that was killed and restarted is bit-for-bit identical to an uninterrupted run.

    `fit` continues the interrupted epoch and skips its completed steps. If you don't call
    `restore_latest`, `SAGAN.fit` restores the model, and datasets from `keras_sagan.data` start at
    the restored step. A `tf.data.Dataset` or an array is read from its beginning up to this step,
    and the resumed run is exact only if the data yield the same batches every time. With any other
    data, such as a generator, the resumed run begins with the first batch.

    Incomplete checkpoints are ignored. If a checkpoint is damaged, a warning names it and the
    previous checkpoint is used. A state with NaN or infinite values isn't saved. Other files in the
    folder aren't changed. Put this callback last, so that the logs contain the metrics of all other
    callbacks, and use one folder per run. A run can be resumed on a different backend. All workers
    must have access to the folder.

    The newest checkpoint contains the end of the last epoch, even if a callback sets the model back
    when training ends, such as `EarlyStopping(restore_best_weights=True)`. A longer run continues
    from there. `monitor` keeps the best checkpoint too.

    Args:
        directory: The path of the folder, which is created if needed, or a URL. A URL, such as
            `gs://bucket/run`, requires fsspec.
        every_steps: The number of steps between saves. `None` saves only after epochs.
        every_epochs: The number of epochs between saves, or `None`. `fit` also saves when it ends.
        keep: The number of checkpoints to keep. The oldest ones are deleted.
        monitor: The name of a metric in the epoch logs, such as `"fid_5k"`. The checkpoint with the
            best value of this metric is kept in the folder `best`.
        mode: `"min"`, `"max"`, or `"auto"` to infer the mode from the name `monitor`.
        restore: Whether `fit` restores the newest checkpoint.
        use_background: Whether to write in a background thread while training continues. The next
            save, or the end of training, waits for the thread and raises any error from it.

    Raises:
        ValueError: If an argument is out of range, or if, when training begins, the folder contains
            a different run or a checkpoint of a different architecture or configuration.
        OSError: If the folder can't be written, the disk is full, or every checkpoint is damaged.

    Example:
    ```python
    # The same script starts a run and resumes it.
    checkpoint = TrainingCheckpoint("runs/first", every_steps=500)
    step = checkpoint.restore_latest(model)  # 0 if there is none
    dataset = keras_sagan.data.make_dataset(images, labels, start_step=step)
    model.fit(dataset, epochs=20, steps_per_epoch=156, callbacks=[checkpoint])
    ```
    """

    def __init__(
        self,
        directory: str | Path,
        every_steps: int | None = None,
        every_epochs: int | None = 1,
        keep: int = 3,
        monitor: str | None = None,
        mode: str = "auto",
        restore: bool = True,
        use_background: bool = False,
    ):
        super().__init__()
        self.every_steps = check_integer("every_steps", every_steps, 1, optional=True)
        self.every_epochs = check_integer("every_epochs", every_epochs, 1, optional=True)
        if every_steps is None and every_epochs is None:
            raise ValueError("`every_steps` or `every_epochs` must be given. Received: two None")
        self.directory = check_directory("directory", directory)
        self.restore = check_boolean("restore", restore)
        self.use_background = check_boolean("use_background", use_background)
        self._files = CheckpointFiles(self.directory, check_integer("keep", keep, 1))
        has_best = monitor is not None or mode != "auto"
        self._best = BestCheckpoint(self.directory, monitor, mode) if has_best else None
        # How `monitor` is measured. A value of a different protocol isn't compared.
        self.protocol: dict | None = None
        self._writer = concurrent.futures.ThreadPoolExecutor(1)
        self._saved_step: int | None = None
        self._state = "new"
        self._manifest = self._model = self._writing = None
        self._step = self._epoch = self._epoch_start = 0

    def restore_latest(self, model: keras.Model) -> int:
        """Restores the newest checkpoint that isn't damaged, and makes `fit` resume from it.

        `model` must be a compiled `SAGAN`; it isn't changed if there is no checkpoint. Returns the
        number of steps that the model has taken. The data for `fit` must continue from this step.

        Raises:
            ValueError: If the checkpoint doesn't match the model's architecture or configuration.
            OSError: If every checkpoint is damaged.
        """
        self._restore(model)
        self._state = "restored"
        start = f"training starts at step {steps_of(model)}"
        self._say(start, "the data must start at this step")
        return steps_of(model)

    def restore_best(self, model: keras.Model) -> int:
        """Restores the best checkpoint according to `monitor`, for sampling but not for resuming.

        Returns the step of that checkpoint, or 0 if there is none. The optimizers are also restored
        if the `SAGAN` is compiled. Raises the same errors as `restore_latest`.
        """
        self._wait()
        files = CheckpointFiles(f"{self.directory}/best", keep=1)
        manifest, values = files.read_newest()
        if manifest is None:
            return 0
        model_state.restore_state(model, manifest, values, files.path(manifest["step"]))
        return manifest["step"]

    def start(self, model: keras.Model, data: object, steps_per_epoch: int | None = None) -> tuple:
        """Restores the model and advances the data to the same step; called by `SAGAN.fit`.

        Returns a tuple of the data to train on, the first epoch (`None` without a checkpoint), the
        number of completed steps in this epoch, and the number of batches to read while `fit` skips
        these steps. Raises `ValueError` if the data's `start_step` exceeds the model's step.
        """
        if self._state == "training":  # Only the first `fit` resumes a run.
            return data, None, 0, 0
        if not self.restore:
            if (newest := max(self._files.steps(), default=0)) > (taken := steps_of(model)):
                raise ValueError(
                    "`directory` must not hold a run that is ahead of the model, unless it is "
                    f"restored. Received: directory={self.directory!r} at step {newest} and a "
                    f"model after {taken} steps"
                )
            return data, None, 0, 0
        is_given = self._state == "restored" and self._model is model
        if not is_given:
            self._restore(model)
        manifest = self._manifest or {"epoch": None, "epoch_step": 0}
        done = manifest["epoch_step"]
        promise = "the run continues exactly only with shuffle=False"
        batches = 0 if keras.backend.backend() == "torch" else done
        if not hasattr(data, "shape") or steps_per_epoch is not None or is_given:
            step = steps_of(model)
            promise, data, batches = position_data(data, steps_per_epoch, step, done, is_given)
        if not (is_given and self._manifest) or batches is None:
            new = f"after an interruption, training resumes from the last checkpoint, and {promise}"
            self._say(new, promise)
        return data, manifest["epoch"], done, batches or 0

    def _set_up(self, model):
        model_state.check_model(model)
        self._is_chief = not model._is_one_of_many or is_chief(model._strategy)
        self._wait()

    def _restore(self, model):
        self._set_up(model)
        manifest, values = self._files.read_newest()
        step = 0 if manifest is None else manifest["step"]
        if model._is_one_of_many:
            check_workers_agree(model._strategy, newest_checkpoint=step)
        if manifest is not None:
            if (taken := steps_of(model)) > step:
                raise ValueError(
                    "`directory` must not be behind the model, unless restore=False. Received: "
                    f"directory={self.directory!r} at step {step} and a model after {taken} steps"
                )
            model_state.restore_state(model, manifest, values, self._files.path(step))
            sums = [values[key] for key in sorted(values) if key.startswith("metrics:")]
            manifest = {**manifest, "sums": sums}
        self._manifest, self._model = manifest, model

    def on_train_begin(self, logs: dict | None = None) -> None:
        self._set_up(self.model)
        self._step = steps_of(self.model)
        self._finite_check = model_state.FiniteCheck(self.model)
        self._configuration = model_state.configuration_of(self.model)
        if self._manifest is not None:
            self._saved_step = self._step
            check_epoch(self._manifest, self.params.get("steps"), self.model.steps_per_execution)
        elif self._saved_step != self._step:
            self._saved_step = None
        if self._is_chief:
            self._files.check_writable()
            self._files.remove_incomplete()
        if self._best:
            self._best.begin(self._is_chief, self.protocol)
        self._state = "training"

    def on_epoch_begin(self, epoch: int, logs: dict | None = None) -> None:
        self._epoch, self._epoch_start = epoch, self._step
        if self._manifest is not None:
            done, sums = self._manifest["epoch_step"], self._manifest["sums"]
            self._epoch_start -= done
            variables = model_state.metrics_of(self.model)
            if done and [tuple(v.shape) for v in variables] == [v.shape for v in sums]:
                for variable, value in zip(variables, sums):
                    variable.assign(value)
            self._manifest = None

    def on_train_batch_end(self, batch: int, logs: dict | None = None) -> None:
        before, step = self._step, self._epoch_start + batch + 1
        if step > before:  # Ignore the steps that a resumed `fit` skips.
            self._step = step
            if self.every_steps and step // self.every_steps > before // self.every_steps:
                self.save()

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        self._step = steps_of(self.model)  # An epoch's last execution may have run fewer steps.
        self._epoch, self._epoch_start = epoch + 1, self._step
        # After the last epoch, save before `EarlyStopping` sets the model back in `on_train_end`.
        is_last = self.model.stop_training or epoch + 1 == self.params.get("epochs")
        is_due = is_last or (self.every_epochs and (epoch + 1) % self.every_epochs == 0)
        if is_due or self._saved_step == self._step:  # The saved manifest still has the old epoch.
            self.save()
        # All workers must take part in `_write`, so the first worker decides whether to write.
        if (best := self._best) and chief_decides(self.model._strategy, best.is_better(logs)):
            entries = {"monitor": best.monitor, "value": best.latest, "protocol": self.protocol}
            best.value = best.latest if self._write(best.files, **entries) else best.value

    def on_train_end(self, logs: dict | None = None) -> None:
        if self._saved_step != self._step:
            self.save()
        self._wait()
        if self._best:
            self._best.warn_if_unseen(logs)

    def save(self) -> str | None:
        """Saves the current state of the run.

        Returns the folder of the checkpoint, or `None` if training hasn't started, the model
        contains NaN or infinite values, or it was set back to an earlier epoch. Raises `OSError` if
        the checkpoint can't be written; earlier checkpoints remain intact.
        """
        if self._state != "training":  # Don't save a model that may be partly restored.
            return None
        step = steps_of(self.model)  # An interrupt may have skipped `on_train_batch_end`.
        if step < self._epoch_start:
            text = f"The model isn't saved because it was set back from step {self._step} to {step}"
            warnings.warn(f"{text}; a run can't be resumed from there.", stacklevel=2)
            return None
        self._step = step
        if self._manifest is None:  # Until an epoch begins, the restored checkpoint is up to date.
            if self._saved_step == self._step:
                self._wait()
                if self._is_chief:
                    self._files.update(self._step, self._position())
            elif not self._write(self._files):
                return None
            self._saved_step = self._step
        return self._files.path(self._step)

    def _position(self):
        """Returns the manifest entries that may change after the checkpoint is written."""
        return {
            "step": self._step,
            "epoch": self._epoch,
            "epoch_step": self._step - self._epoch_start,
            # `steps_per_epoch` is `None` until Keras knows the number of batches.
            "steps_per_epoch": self.params.get("steps"),
            "learning_rates": model_state.learning_rates_of(self.model),
        }

    def _write(self, files, **entries):
        """Writes a checkpoint if all values are finite, and returns whether they are."""
        self._wait()
        if broken := self._finite_check():
            steps = self._files.steps()
            kept = f"the newest checkpoint is of step {steps[-1]}" if steps else "there is no other"
            text = f"Step {self._step} isn't saved because `{broken[0]}` isn't finite; {kept}."
            warnings.warn(text, RuntimeWarning, stacklevel=2)
            return False
        # All workers must read the variables, because some variables are summed over the workers.
        arrays = model_state.read_state(self.model, copy=self.use_background)
        manifest = self._position() | model_state.architecture_of(self.model) | entries
        manifest["configuration"] = self._configuration
        if self._is_chief:
            self._writing = self._writer.submit(files.write, self._step, arrays, manifest)
            if not self.use_background:
                self._wait()
        return True

    def _wait(self):
        """Waits for the writing thread to finish, and raises any error from it."""
        writing, self._writing = self._writing, None
        if writing is not None:
            writing.result()

    def _say(self, promise_of_new, promise_of_restored):
        text = f"No checkpoint in {self.directory} yet: {promise_of_new}"
        if self._manifest is not None:
            step, epoch, done = (self._manifest[x] for x in ("step", "epoch", "epoch_step"))
            where = f"{done} steps into" if done else "at the start of"
            text = f"Restored step {step} ({where} epoch {epoch + 1}) "
            text += f"from {self._files.path(step)}; {promise_of_restored}"
        if self._is_chief:
            print(f"TrainingCheckpoint: {text}.", flush=True)
