import concurrent.futures
import warnings

import keras

from keras_sagan.callbacks.best_checkpoint import BestCheckpoint
from keras_sagan.callbacks.checkpoint_files import CheckpointFiles, check_directory
from keras_sagan.callbacks.model_state import (
    FiniteCheck,
    architecture_of,
    check_model,
    configuration_of,
    learning_rates_of,
    metrics_of,
    read_state,
    restore_state,
)
from keras_sagan.checks import check_boolean, check_integer
from keras_sagan.data.position import check_epoch, position_data
from keras_sagan.distribution import check_workers_agree, chief_decides, is_chief


class TrainingCheckpoint(keras.callbacks.Callback):
    """Saves all of a training run, and resumes it from the newest checkpoint.

    A checkpoint holds both networks with their batch statistics and `vector_u`, the averaged
    generator, both optimizers with their slots and loss scales, the seed and the states of seed
    generators, the step, the position in the epoch, and the sums behind the epoch's metrics. On a
    CPU, a run that was killed and started again ends with the same bits as one that wasn't. The
    same script does both:

    ```python
    checkpoint = TrainingCheckpoint("runs/first", every_steps=500)
    step = checkpoint.restore_latest(model)  # 0 if there is none
    dataset = keras_sagan.data.make_dataset(images, labels, start_step=step)
    model.fit(dataset, epochs=20, steps_per_epoch=156, callbacks=[checkpoint])
    ```

    `fit` then begins with the epoch that was interrupted and skips the steps of it that are done.
    Without the second and third line, `SAGAN.fit` restores the model too and positions data of
    `keras_sagan.data` at its step; other data it reads up to there, which is as exact where they
    give the same batches each time they are read.

    A checkpoint counts once all of it is written. Damaged ones are named in a warning, and the
    one before is used. States that aren't finite aren't saved. Other files in the folder are left
    alone. Put the callback last, so that the metrics of the others are there, and use one folder
    for each run. A run may be resumed on another backend. With several workers the folder must be
    one that all see; the chief writes it.

    Args:
        directory: String or path, a folder, which is made if it isn't there; or a URL such as
            `gs://bucket/run`, for which fsspec must be installed.
        every_steps: Integer. Save each time so many steps are done. Defaults to `None`: only by
            epoch.
        every_epochs: Integer. Save each time so many epochs are done, or `None`. The end of
            training is saved too. Defaults to `1`.
        keep: Integer. How many of the newest checkpoints to keep. Defaults to `3`.
        monitor: String, a key of an epoch's logs such as `"fid_5k"`. The checkpoint of its best
            value is kept in the folder `best`. Defaults to `None`.
        mode: `"min"`, `"max"`, or `"auto"` to tell from `monitor`. Defaults to `"auto"`.
        restore: Boolean. Whether `fit` begins with the newest checkpoint. Defaults to `True`.
        use_background: Boolean. Whether files are written while training goes on. A save then
            counts when the next one begins or training ends, and its error is raised there.
            Defaults to `False`.

    Raises:
        ValueError: If an argument is out of range or, when training begins, a checkpoint belongs
            to another architecture or configuration, or the folder to another run.
        OSError: If the folder can't be written, the disk is full, or every checkpoint is damaged.

    Example:

    See above; `docs/never_lost.md` says what is promised and how that was tested.
    """

    def __init__(
        self,
        directory,
        every_steps=None,
        every_epochs=1,
        keep=3,
        monitor=None,
        mode="auto",
        restore=True,
        use_background=False,
    ):
        super().__init__()
        self.every_steps = check_integer("every_steps", every_steps, 1, optional=True)
        self.every_epochs = check_integer("every_epochs", every_epochs, 1, optional=True)
        if every_steps is None and every_epochs is None:
            raise ValueError(
                "`every_steps` or `every_epochs` must be given. Received: None for both"
            )
        keep = check_integer("keep", keep, 1)
        self.directory = check_directory("directory", directory)
        self.restore = check_boolean("restore", restore)
        self.use_background = check_boolean("use_background", use_background)
        self._files = CheckpointFiles(self.directory, keep)
        self._best = None
        if monitor is not None or mode != "auto":
            self._best = BestCheckpoint(self.directory, monitor, mode)
        self._writing = None  # What a thread is writing.
        self._state = "new"  # Then "restored" by `restore_latest`, and "training" by `fit`.
        self._manifest = self._model = None  # What was restored, and into which model.
        self._sums = []  # The values of the metrics in the interrupted epoch.
        self._step = self._epoch = self._epoch_start = 0
        self._saved_step = self._finite_check = self._configuration = None

    # Restoring

    def restore_latest(self, model):
        """Restores the newest checkpoint that isn't damaged, and has `fit` resume from there.

        Args:
            model: A compiled `SAGAN`.

        Returns:
            Integer, the training steps that the model has taken: where the data have to start.
            0 if there is no checkpoint.

        Raises:
            ValueError: If the checkpoint belongs to another architecture.
            OSError: If every checkpoint is damaged.
        """
        self._restore(model)
        self._state = "restored"
        if self._manifest is None:
            self._say(f"No checkpoint in {self.directory}: training starts at step 0.")
        else:
            restored = self._files.describe(self._manifest)
            self._say(f"Restored {restored}; have the data start there.")
        return _steps(model)

    def restore_best(self, model):
        """Restores the best checkpoint by `monitor`; for use, not to resume training.

        Args:
            model: A `SAGAN`; its optimizers are restored if it is compiled.

        Returns:
            Integer, the step of that checkpoint; 0 if there is none.

        Raises:
            ValueError: If the checkpoint belongs to another architecture.
            OSError: If it is damaged.
        """
        self._wait()
        files = CheckpointFiles(f"{self.directory}/best", keep=1)
        manifest, values = files.read_newest()
        if manifest is None:
            return 0
        restore_state(model, manifest, values, files.path(manifest["step"]))
        return manifest["step"]

    def start(self, model, data, steps_per_epoch=None):
        """Restores the model and positions its data; `SAGAN.fit` calls it before all else.

        Args:
            model: A compiled `SAGAN`.
            data: What `fit` got as `x`.
            steps_per_epoch: What `fit` got, an integer or `None`.

        Returns:
            Tuple of the data to train on; the epoch to begin with, or `None`; how many steps of it
            were done before, which `fit` skips; and how many batches it reads meanwhile.

        Raises:
            ValueError: If the data start after the model's step.
        """
        self._set_up(model)
        if self._state == "training" or not self.restore:  # Only the first `fit` restores.
            return data, None, 0, 0
        is_given = self._state == "restored" and self._model is model  # By `restore_latest`.
        if not is_given:
            self._restore(model)
        manifest = self._manifest or {"epoch": None, "epoch_step": 0}
        done = manifest["epoch_step"]
        promise, data, batches = position_data(data, steps_per_epoch, _steps(model), done, is_given)
        if self._manifest is None:
            self._say(f"No checkpoint in {self.directory}. If this is killed, {promise}.")
        elif not is_given or batches is None:
            self._say(f"Restored {self._files.describe(self._manifest)}; {promise}.")
        return data, manifest["epoch"], done, batches or 0

    def _set_up(self, model):
        """Checks the model, and notes whether this process writes the files."""
        check_model(model)
        self._is_chief = not model._is_one_of_many or is_chief(model._strategy)

    def _restore(self, model):
        """Restores the model, and notes the manifest or `None`."""
        self._set_up(model)
        self._wait()
        manifest, values = self._files.read_newest()
        step = 0 if manifest is None else manifest["step"]
        if model._is_one_of_many:
            check_workers_agree(model._strategy, newest_checkpoint=step)
        if manifest is not None:
            if _steps(model) > step:
                raise ValueError(
                    "`directory` must not be behind the model. Give TrainingCheckpoint "
                    "restore=False to start from the model. "
                    f"Received: directory={self.directory!r} at step {step} for a model that has "
                    f"taken {_steps(model)} steps"
                )
            restore_state(model, manifest, values, self._files.path(step))
            self._sums = [values[key] for key in sorted(values) if key.startswith("metrics:")]
        self._manifest, self._model = manifest, model

    # During `fit`

    def on_train_begin(self, logs=None):
        self._set_up(self.model)
        self._wait()
        self._step = _steps(self.model)
        self._finite_check = None
        if self._manifest is not None:
            self._saved_step = self._step
            check_epoch(self._manifest, self.params.get("steps"), self.model.steps_per_execution)
        elif self._saved_step != self._step:
            self._saved_step = None
            newest = max(self._files.steps(), default=0)
            if self._state != "training" and newest > self._step:
                raise ValueError(
                    "`directory` must not hold a run that is ahead of the model: give another one, "
                    f"or let it restore. Received: directory={self.directory!r} with step "
                    f"{newest}, for a model that has taken {self._step} steps"
                )
        if self._is_chief:
            self._files.check_writable()
            self._files.remove_incomplete()
        if self._best:
            self._best.begin(self._is_chief)
        self._state = "training"

    def on_epoch_begin(self, epoch, logs=None):
        self._epoch, self._epoch_start = epoch, self._step
        if self._manifest is None:
            return
        done = self._manifest["epoch_step"]
        self._epoch_start -= done
        variables = metrics_of(self.model)
        if done and [tuple(v.shape) for v in variables] == [v.shape for v in self._sums]:
            for variable, value in zip(variables, self._sums):
                variable.assign(value)
        self._manifest, self._sums = None, []

    def on_train_batch_end(self, batch, logs=None):
        before, step = self._step, self._epoch_start + batch + 1
        if step <= before:  # It was done before.
            return
        self._step = step
        if self.every_steps and step // self.every_steps > before // self.every_steps:
            self.save()

    def on_epoch_end(self, epoch, logs=None):
        self._step = _steps(self.model)  # A data set may have ended within an execution.
        self._epoch, self._epoch_start = epoch + 1, self._step
        is_due = self.every_epochs and (epoch + 1) % self.every_epochs == 0
        if is_due or self._saved_step == self._step:  # Of a saved step, the position has changed.
            self.save()
        # Writing takes all workers: one of them decides.
        if self._best and self._decide(self._best.is_better(logs)):
            value = (logs or {}).get(self._best.monitor)  # `None` on a worker that measures none.
            value = None if value is None else float(value)
            if self._write(self._best.files, {"monitor": self._best.monitor, "value": value}):
                self._best.value = value

    def on_train_end(self, logs=None):
        self._step = _steps(self.model)
        if self._saved_step != self._step:
            self.save()
        self._wait()
        if self._best:
            self._best.warn_if_unseen(logs)

    # Saving

    def save(self):
        """Saves the run as it is, unless it isn't finite.

        Returns:
            String, the folder of the checkpoint, or `None` where nothing was saved: training
            hasn't begun, or the model isn't finite.

        Raises:
            OSError: If it can't be written; the checkpoints before it are complete.
        """
        if self._state != "training":  # The model may be half restored.
            return None
        self._step = _steps(self.model)  # A step may have ended without its callbacks.
        if self._manifest is None:  # Else nothing was done since, and the epoch hasn't begun.
            if self._saved_step == self._step:
                self._wait()
                if self._is_chief:
                    self._files.update(self._step, self._position())
            elif not self._write(self._files):
                return None
            self._saved_step = self._step
        return self._files.path(self._step)

    def _position(self):
        """What may change after a step was saved."""
        return {
            "step": self._step,
            "epoch": self._epoch,
            "epoch_step": self._step - self._epoch_start,
            # `None` in the first epoch, whose length Keras may not know yet.
            "steps_per_epoch": self.params.get("steps"),
            "learning_rates": learning_rates_of(self.model),
        }

    def _write(self, files, entries=None):
        """Writes a checkpoint, or has a thread write it; returns whether the state is finite."""
        self._wait()
        if self._finite_check is None:
            self._finite_check = FiniteCheck(self.model)
            self._configuration = configuration_of(self.model)  # Takes longer than a step.
        broken = self._finite_check()
        if broken:
            newest = max(self._files.steps(), default=None)
            kept = f"the newest checkpoint is of step {newest}" if newest else "there is none yet"
            warnings.warn(
                f"Step {self._step} isn't saved, as `{broken[0]}` isn't finite; {kept}.",
                RuntimeWarning,
                stacklevel=2,
            )
            return False
        # On all workers, as some variables are sums over them.
        arrays = read_state(self.model, copy=self.use_background)
        manifest = {
            **self._position(),
            **architecture_of(self.model),
            "configuration": self._configuration,
            **(entries or {}),
        }
        if self._is_chief:
            executor = concurrent.futures.ThreadPoolExecutor(1)  # The process waits for its end.
            self._writing = executor.submit(files.write, self._step, arrays, manifest)
            executor.shutdown(wait=False)
            if not self.use_background:
                self._wait()
        return True

    def _wait(self):
        """Waits for the thread that writes, and raises its error."""
        writing, self._writing = self._writing, None
        if writing is not None:
            writing.result()

    def _decide(self, decision):
        """Returns what the chief has decided."""
        one_of_many = self.model._is_one_of_many
        return chief_decides(self.model._strategy, decision) if one_of_many else decision

    def _say(self, text):
        if self._is_chief:
            print(f"TrainingCheckpoint: {text}", flush=True)


def _steps(model):
    return int(keras.ops.convert_to_numpy(model.steps))
