"""One training run: its folder and lock, checkpoints, pictures, scores, curves, log and JSON."""

import contextlib
import json
import os
import platform
import shlex
import sys
import tempfile
import time
from pathlib import Path

import keras

from keras_sagan import callbacks, metrics, models
from keras_sagan.callbacks.checkpoint_files import CheckpointFiles
from keras_sagan.distribution import is_chief
from keras_sagan.log import Log
from keras_sagan.metrics.report import package_versions
from keras_sagan.options import TRAIN, check_options
from keras_sagan.sources import extractor_for, open_source
from keras_sagan.visualization import plot_curves
from keras_sagan.whole_files import replace_file

__all__ = ["fit", "train"]

NETWORKS = ("image_size", "base_filters", "g_learning_rate", "d_learning_rate", "ema_momentum")
FIXED = ("preset", "recipe", *NETWORKS, "precision", "seed", "channels", "num_classes")
"""What a run can't change: the command must give it as before."""
ELSEWHERE = "--output must be a new folder, or that of the same run. Received:"


def train(log=None, **options):
    """Trains a SAGAN on images, as `keras-sagan train` does; the same call again resumes.

    The folder gets `model.keras`, `run.json` with all settings and scores, `history.json` and
    `curves.png` with the metrics of all epochs, samples by epoch, figures of the attention,
    `checkpoints/` and `keras_sagan.log`. A run that is finished is left as it is.

    Args:
        log: A `keras_sagan.log.Log`. Defaults to `None`: a new one, in the folder of the run.
        **options: The options of `keras-sagan train`, with `_` for `-`, such as `output`,
            `images` and `epochs`. All have defaults.

    Returns:
        Dictionary, what `run.json` says.

    Raises:
        ValueError: For an unknown option or value, or the folder of another run.
        RuntimeError: If another process trains in the folder.
        OSError: If the folder can't be written.

    Example:

    ```python
    from keras_sagan.run import train

    train(output="runs/photos", images="photos", epochs=20)
    ```
    """
    defaults = {name: option.default for name, option in TRAIN.items()}
    settings = with_defaults({**defaults, **check_options(TRAIN, options)})
    output, epochs = Path(settings["output"]), settings["epochs"]
    log = log or Log([f"{name}={value}" for name, value in options.items()])
    log.folder = output
    known = read_record(output)
    source = open_source(settings, settings["image_size"], settings["batch_size"], log.say)
    names = source.class_names and list(source.class_names)
    kind = {"channels": source.channels, "num_classes": names and len(names)}
    check_same_run(output, known, {**settings, **kind})
    finished, newest = known.get("finished", {}), newest_step(output)
    is_whole = finished.get("step", 0) == newest > 0 and (output / "model.keras").exists()
    if is_whole and epochs <= finished["epochs"]:
        log.say(f"The run in {output}/ is finished, and nothing was changed. Give more --epochs.")
        return known
    model = build_model(settings, **kind)
    evaluator = evaluator_for(model, settings, source, log)
    steps = settings["steps_per_epoch"] or source.steps_per_epoch
    log.say(f"{source.name}: {steps} steps an epoch, {epochs} epochs, into {output}/")
    settings = {**settings, "backend": keras.backend.backend()}
    record = {"settings": settings, "data": source.name, "class_names": names, **kind}
    more = {"save_every": settings["save_every"], "real_images": source.head(4), "log": log}
    more["build_untrained"] = lambda: build_model(settings, **kind)
    return fit(model, source.batches(), output, epochs, steps, record, evaluator, **more)


def with_defaults(settings):
    """Returns settings with values for those that depend on others and weren't given."""
    is_shipped = not (settings["images"] or settings["dataset"])
    preset = "sagan_photos_64" if settings["images"] else "sagan_fashion_mnist_32"
    preset = settings["preset"] or preset
    known = {"ema_momentum": None, **models.preset_settings(preset, settings["recipe"])}
    epochs = settings["epochs"] or (6 if is_shipped else 100)
    defaults = {
        "preset": preset,
        "batch_size": models.PRESETS[preset]["batch_size"],
        "epochs": epochs,
        "fid_images": 5000 if is_shipped else 1000,
        "fid_every": -(-epochs // 5),
        **{name: known[name] for name in NETWORKS},
    }
    return settings | {name: x for name, x in defaults.items() if settings[name] is None}


def build_model(settings, channels, num_classes):
    """Returns the compiled model of settings, always with the same weights."""
    changes = {name: settings[name] for name in (*NETWORKS, "seed")}
    preset, size = (settings["preset"], settings["recipe"]), settings["image_size"]
    if size != models.preset_settings(*preset)["image_size"]:
        changes["attention_resolutions"] = (min(32, size // 2),)
    changes |= {"channels": channels, "num_classes": num_classes}
    policy = keras.config.dtype_policy()
    keras.config.set_dtype_policy(settings["precision"])
    try:
        keras.utils.set_random_seed(settings["seed"])
        model = models.SAGAN.from_preset(*preset, **changes)
        model.compile()
    finally:
        keras.config.set_dtype_policy(policy)
    return model


def evaluator_for(model, settings, source, log):
    """Returns the `FIDEvaluator` of settings, or `None` where none is wanted or can be had."""
    extractor = extractor_for(model.image_shape, settings)
    is_asked_for = settings["inception"] or settings["inception_sha256"]
    if not settings["fid_images"]:
        return None
    if not is_asked_for and not getattr(extractor, "is_at_hand", True):
        log.say("No FID is measured: it needs --inception, or --inception-sha256.")
        return None
    metric = metrics.FrechetInceptionDistance(extractor, batch_size=250)
    # This loads the network, which may fail, before anything is trained.
    log.say(f"The FID looks through {metric.protocol['feature_extractor']}")
    real, _ = source.head(settings["fid_images"])
    common = {"batch_size": 250, "seed": settings["seed"], "dataset": source.name}
    common["split"] = f"{len(real)} images, {source.chosen}"
    return callbacks.FIDEvaluator(metric, real, len(real), settings["fid_every"], **common)


def fit(
    model,
    dataset,
    output,
    epochs,
    steps_per_epoch,
    record=None,
    evaluator=None,
    real_images=(None, None),
    build_untrained=None,
    save_every=None,
    others=(),
    log=None,
):
    """Trains any model on any data in a folder, as `train` does; the same call again resumes.

    Args:
        model, dataset, epochs, steps_per_epoch: A compiled `SAGAN`, and what its `fit` takes.
        output: String or path, the folder of the run.
        record: Dictionary, ready for JSON, that `run.json` begins with. Its `class_names`, a list
            of strings, are written beside samples. Defaults to `None`.
        evaluator: `FIDEvaluator`. Defaults to `None`.
        real_images: Pair of images for the figure of the discriminator's attention, and of their
            labels or `None`. Defaults to `(None, None)`: no such figure.
        build_untrained: Function that returns the model before training, for its FID.
            Defaults to `None`.
        save_every: Integer. Steps between checkpoints. Defaults to `None`: the end of an epoch.
        others: List of other callbacks. Defaults to `()`.
        log: As of `train`.

    Returns:
        Dictionary, what `run.json` says.

    Raises:
        KeyboardInterrupt: After Ctrl-C, when the run is saved.
        ValueError: If training stopped at a loss or a weight that isn't finite.
        RuntimeError, OSError: As of `train`.
    """
    output, log = Path(output), log or Log(["fit"])
    log.folder = output
    is_first = is_chief(getattr(model, "distribute_strategy", None))
    # All processes draw and measure; the first one keeps the results.
    place = locked(output) if is_first else tempfile.TemporaryDirectory()
    with place as folder:
        folder = Path(folder)
        checkpoint = callbacks.TrainingCheckpoint(output / "checkpoints", every_steps=save_every)
        evaluators = [evaluator] if evaluator else []
        history = callbacks.RunHistory(output / "history.json", evaluators)
        writer = RecordWriter(folder, record or {}, log)
        stop, names = callbacks.StopOnNonFinite(), writer.content.get("class_names")
        figures = []
        if model.attention_gammas():
            labels = real_images[1] if model.num_classes else None
            real = {"real_images": real_images[0], "real_labels": labels}
            figures = [callbacks.AttentionFigure(folder, class_names=names, **real)]
        parts = [stop, callbacks.AttentionMonitor(), callbacks.CollapseMonitor()]
        parts += [callbacks.SampleGrid(folder, class_names=names, gif=True), *figures, *evaluators]
        # The checkpoint comes last: all before it is done then.
        parts += [*others, writer, history, checkpoint]
        length = {"epochs": epochs, "steps_per_epoch": steps_per_epoch}
        try:
            model.fit(dataset, **length, callbacks=parts, verbose="auto" if is_first else 0)
        except KeyboardInterrupt as error:
            if not (step := int(model.steps.numpy())):
                raise
            checkpoint.save()
            history.save()
            writer.save()
            message = f" after step {step}; the same command again resumes the run"
            raise KeyboardInterrupt(message) from error
        if stop.reason:
            raise ValueError(f"{stop.reason} The newest of {checkpoint.directory} is from before.")
        model.save(folder / "model.keras")
        step, results = int(model.steps.numpy()), {}
        if evaluator:
            if build_untrained and 0 not in dict(evaluator.history):
                # Before training it would keep a user waiting.
                evaluator.set_model(build_untrained())
                evaluator.record(0)
            history.save()
            by_epoch = sorted(evaluator.history)
            results["fid"] = {"name": evaluator.name, "by_epoch": by_epoch}
            results["fid"] |= {"start": by_epoch[0][1], "end": by_epoch[-1][1]} if by_epoch else {}
            results["fid"]["protocol"] = evaluator.protocol
            for epoch, value in by_epoch:
                log.say(f"{evaluator.name} after {epoch} epochs: {value:.1f}")
        if history.history:
            plot_curves(history.history, folder / "curves.png")
        gammas = {name: float(value) for name, value in model.attention_gammas().items()}
        results |= {"attention_gamma": gammas, "finished": {"epochs": epochs, "step": step}}
        writer.save({"steps": step, **results})
        log.say(f"Pictures, model.keras and run.json are in {output}/")
        return writer.content


class RecordWriter(keras.callbacks.Callback):
    """Writes `run.json` from the first trained step on: what is refused before leaves nothing."""

    def __init__(self, folder, record, log):
        super().__init__()
        self.path, self.content, self.log = folder / "run.json", dict(record), log
        self._began = time.perf_counter() - read_record(folder).get("seconds", 0)

    def on_train_begin(self, logs=None):
        networks = (self.model.generator, self.model.discriminator)
        self.content |= {
            "command": shlex.join(["python", *sys.orig_argv[1:]]),
            "versions": package_versions(),
            "hardware": {"cpu": platform.processor(), "cores": os.cpu_count()},
            "parameters": {network.name: network.count_params() for network in networks},
        }

    def on_train_batch_end(self, batch, logs=None):
        if "seconds" not in self.content:
            self.save()
            self.log.write("The folder holds a run from here on.")  # The log moves into it.

    def on_epoch_end(self, epoch, logs=None):
        values = ", ".join(f"{name} {value:.5g}" for name, value in (logs or {}).items())
        self.log.write(f"epoch {epoch + 1}: {values}")
        self.save()

    def save(self, results=None):
        """Writes the file; with the results of a finished run at its end, after all other files."""
        self.content["seconds"] = round(time.perf_counter() - self._began, 1)
        self.content |= results or {}
        text = json.dumps(self.content, indent=2) + "\n"
        replace_file(self.path, lambda file: file.write(text.encode()))


@contextlib.contextmanager
def locked(folder):
    """Makes a folder and keeps it to this process; the lock ends with the process, however."""
    with contextlib.ExitStack() as stack:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            file = stack.enter_context(open(folder / "run.lock", "ab"))
        except OSError as error:
            raise OSError(
                f"--output must be a folder that can be written. Received: {folder} ({error})"
            ) from error
        try:
            import fcntl

            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise RuntimeError(
                f"--output must be a folder that no other process trains in. Received: {folder}"
            ) from None
        except (ImportError, OSError):
            pass  # There are no such locks here.
        yield folder


def read_record(folder):
    """Returns what a run's `run.json` says, or an empty dictionary where there is none."""
    path = Path(folder) / "run.json"
    if not path.exists():
        return {}
    try:
        return {**json.loads(path.read_text(encoding="utf-8"))}
    except (TypeError, ValueError) as error:
        raise ValueError(f"{path} is damaged: remove it. ({error})") from error


def newest_step(output):
    """Returns the step of the newest complete checkpoint of a run, or 0."""
    return max(CheckpointFiles(f"{output}/checkpoints", 1).steps(), default=0)


def check_same_run(output, known, wanted):
    """Raises ValueError if a folder holds another run, or files that a run would replace."""
    if known and "class_names" not in known:
        raise ValueError(f"{ELSEWHERE} {output} with a run.json of another program")
    files = ("model.keras", "history.json", "curves.png")
    for name in () if known or newest_step(output) else files:
        if (output / name).exists():
            raise ValueError(f"{ELSEWHERE} {output} with {name} and without a run")
    known = known | known.get("settings", {})
    for name in FIXED:
        if name in known and known[name] != wanted[name]:
            pair = f"a run of {name}={known[name]!r}, and {name}={wanted[name]!r}"
            raise ValueError(f"{ELSEWHERE} {output} with {pair}")
