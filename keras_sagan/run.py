"""Runs training, and writes checkpoints, sample images, scores, curves, a log and JSON files."""

import contextlib
import json
import os
import platform
import shlex
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np

from keras_sagan import callbacks, metrics, models
from keras_sagan.callbacks.checkpoint_files import CheckpointFiles, DamagedCheckpoint
from keras_sagan.checks import check_path, require
from keras_sagan.distribution import check_workers_agree, is_chief, make_strategy
from keras_sagan.log import Log
from keras_sagan.metrics.report import package_versions
from keras_sagan.models.connection import check_unshared
from keras_sagan.options import TRAIN, check_backend, check_options
from keras_sagan.sources import extractor_for, open_source
from keras_sagan.visualization import plot_curves
from keras_sagan.whole_files import replace_file

__all__ = ["fit", "train"]

NETWORKS = ("image_size", "base_filters", "g_learning_rate", "d_learning_rate", "ema_momentum")
# A resumed run can't change these settings, or the channels and classes of its images.
FIXED = ("preset", "recipe", *NETWORKS, "precision", "seed", "augmentation")
FIXED += ("flip", "checkpoints")
# Files of a run that exist only if `run.json` exists.
WRITTEN = ("model.keras", "history.json", "curves.png", "*_epoch_*[1-9]*.png", "samples.gif")
# Distances are comparable only if these entries of their protocols agree.
COMPARED = ("feature_extractor", "resize", "metrics", "reference", "reference_split")
COMPARED += ("reference_sha256",)  # This entry is `None` before an evaluation.
ELSEWHERE = "--output must be a new folder, or the folder of the same run. Received:"


def train(log: Log | None = None, **options: Any) -> dict:
    """Trains a SAGAN on images, like `keras-sagan train`; a repeated call resumes the run.

    The output folder contains `model.keras`, `run.json` with all settings and scores,
    `history.json` and `curves.png` with the metrics of all epochs, samples of each epoch, attention
    figures, `checkpoints/` and `keras_sagan.log`. A finished run is left unchanged. With
    `strategy`, several devices or processes train together, and only the first process writes to
    the folder. The function returns the content of `run.json`.

    Args:
        log: A `keras_sagan.log.Log`, or `None` for a new log in the run's folder.
        **options: The options of `keras-sagan train`, with `_` for `-`, such as `output`, `images`
            and `epochs`. All have defaults.

    Raises:
        ValueError: If an option or value is unknown, Keras already uses another `backend`, the
            folder belongs to a different run, or `output` is inside `images`.
        RuntimeError: If another process is training in the folder, or processes can't connect.
        ImportError: If an option needs a package that isn't installed.
        OSError: If the folder can't be written to.

    Example:
    ```python
    from keras_sagan.run import train

    train(output="runs/photos", images="photos", epochs=20)
    ```
    """
    defaults = {name: option.default for name, option in TRAIN.items()}
    settings = with_defaults({**defaults, **check_options(TRAIN, options)})
    check_backend(settings["backend"])
    if "://" in settings["output"]:
        text = "--output must be a local folder; --checkpoints takes a URL."
        raise ValueError(f"{text} Received: {settings['output']}")
    output, epochs = Path(check_path("output", settings["output"])), settings["epochs"]
    own = output / "checkpoints"
    if settings["checkpoints"] and Path(settings["checkpoints"]).resolve() == own.resolve():
        settings["checkpoints"] = None  # The same folder written out is the same run.
    checkpoints = settings["checkpoints"] or str(own)
    images = settings["images"] and Path(settings["images"]).expanduser().resolve()
    if images and (images == output.resolve() or images in output.resolve().parents):
        text = "--output must be outside --images, or the run's pictures become training images."
        raise ValueError(f"{text} Received: {output} in {images}")
    if settings["tensorboard"]:
        require("tensorboard", "--tensorboard", "tensorboard")
    log = log or Log([f"{name}={value}" for name, value in options.items()])
    strategy = None
    if settings["strategy"] or settings["tpu"]:
        strategy = make_strategy(settings["strategy"] or "auto", tpu=settings["tpu"])
    if is_chief(strategy):
        if (output / "run.lock").exists():
            # Raise an error if another process is training in the folder. Allow a read-only folder.
            with contextlib.suppress(OSError), locked(output):
                pass
        log.folder = output
    known = read_record(output)
    source = open_source(settings, settings["image_size"], settings["batch_size"], log.say)
    names = source.class_names and list(source.class_names)
    kind = {"channels": source.channels, "num_classes": names and len(names)}
    finished = known.get("finished", {})
    files = CheckpointFiles(checkpoints, 1)
    newest = max(files.steps(), default=0)
    check_same_run(output, known, {**settings, **kind, "class_names": names}, newest)
    before = known.get("settings", settings)["batch_size"]
    if newest and before != settings["batch_size"]:
        with contextlib.suppress(DamagedCheckpoint):
            if files.manifest(newest)["epoch_step"]:
                text = "--batch-size can change only at the end of an epoch: repeat the command "
                text += f"with --batch-size {before} first. Received: "
                raise ValueError(f"{text}{settings['batch_size']}")
    # All processes read the folder before the first one writes to it.
    check_workers_agree(strategy, output=[newest, finished])
    is_complete = newest in (0, finished.get("step")) and (output / "model.keras").exists()
    if finished and is_complete and epochs <= finished["epochs"]:
        log.say(f"The run in {output}/ is finished, and nothing was changed. Give more --epochs.")
        return known
    if finished and not newest:  # The folder may be on a disk that isn't mounted.
        text = f"The finished run in {output} can't continue without its checkpoints: "
        raise ValueError(f"{text}restore {checkpoints}, or give another --output.")
    steps = settings["steps_per_epoch"] or source.steps_per_epoch
    if steps % settings["steps_per_execution"]:
        text = f"--steps-per-execution must divide the {steps} steps of an epoch."
        raise ValueError(f"{text} Received: {settings['steps_per_execution']}")
    if known.get("data", source.name) != source.name:
        log.say(f"The run was trained on {known['data']}, and continues on {source.name}.")
    model = build_model(settings, **kind, strategy=strategy)
    evaluator = evaluator_for(model, settings, source, log)
    # All processes take part in the evaluation, so they need the same evaluator.
    check_workers_agree(strategy, fid=evaluator and evaluator.name)
    names_of_count = ("num_replicas_in_sync", "num_model_replicas")
    replicas = max(getattr(strategy, name, 1) for name in names_of_count)
    on = f", on {replicas} replicas" if replicas > 1 else ""
    length = [f"{x} {unit}{'s' * (x != 1)}" for x, unit in ((steps, "step"), (epochs, "epoch"))]
    log.say(f"{source.name}: {length[0]} per epoch, {length[1]}{on}, into {output}/")
    settings = {**settings, "backend": keras.backend.backend()}
    record = {"settings": settings, "data": source.name, "class_names": names, **kind}
    monitor = evaluator.name if evaluator and settings["keep_best"] else None
    if settings["keep_best"] and not evaluator:
        log.say("--keep-best has no effect, because no FID is measured.")
    checkpoint = callbacks.TrainingCheckpoint(checkpoints, settings["save_every"], monitor=monitor)
    more = {"real_images": source.head(4), "checkpoint": checkpoint, "log": log}
    more["build_untrained"] = lambda: build_model(settings, **kind, strategy=strategy)
    if settings["tensorboard"] and is_chief(strategy):
        more["others"] = [keras.callbacks.TensorBoard(output / "tensorboard")]
    return fit(model, source.batches(), output, epochs, steps, record, evaluator, **more)


def with_defaults(settings):
    """Fills in the defaults that depend on other settings."""
    is_shipped = not (settings["images"] or settings["dataset"])
    size = min(max(settings["image_size"] or 64, 32), 128)  # The penalties depend on the size.
    preset = f"sagan_small_data_{size}" if settings["images"] else "sagan_fashion_mnist_32"
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


def build_model(settings, channels, num_classes, strategy=None):
    """Returns the compiled model for the settings, with the same initial weights on every call."""
    changes = {name: settings[name] for name in (*NETWORKS, "seed")}
    changes |= {"channels": channels, "num_classes": num_classes}
    preset, size = (settings["preset"], settings["recipe"]), settings["image_size"]
    if settings["augmentation"] is not None:
        changes["objective"] = {"augmentation": settings["augmentation"]}
    if size != models.preset_settings(*preset)["image_size"]:
        changes["attention_resolutions"] = (min(32, size // 2),)
    policy = keras.config.dtype_policy()
    keras.config.set_dtype_policy(settings["precision"])
    try:
        keras.utils.set_random_seed(settings["seed"])
        with strategy.scope() if strategy else contextlib.nullcontext():
            model = models.SAGAN.from_preset(*preset, **changes)
            model.compile(steps_per_execution=settings["steps_per_execution"])
    finally:
        keras.config.set_dtype_policy(policy)
    return model


def evaluator_for(model, settings, source, log):
    """Returns the `FIDEvaluator` for the settings, or `None` if FID is disabled or unavailable."""
    extractor = extractor_for(model.image_shape, settings)
    if not settings["fid_images"]:
        return None
    metric = metrics.FrechetInceptionDistance(extractor, batch_size=250)
    try:
        # Find errors, such as a damaged weights file, before training.
        extractor(np.zeros((1, *model.image_shape), "float32"))
        log.say(f"The FID uses the features of {metric.protocol['feature_extractor']}")
    except ImportError as error:
        if settings["inception"] or settings["inception_sha256"]:
            raise
        log.say(f"No FID is measured: {error}")
        return None
    real, _ = source.head(settings["fid_images"])
    common = {"batch_size": 250, "seed": settings["seed"], "dataset": source.name}
    common["split"] = f"{len(real)} images, {source.chosen}"
    return callbacks.FIDEvaluator(metric, real, len(real), settings["fid_every"], **common)


def fit(
    model: keras.Model,
    dataset: Any,
    output: str | Path,
    epochs: int,
    steps_per_epoch: int,
    record: dict | None = None,
    evaluator: callbacks.FIDEvaluator | None = None,
    real_images: tuple = (None, None),
    build_untrained: Callable[[], keras.Model] | None = None,
    others: Sequence[keras.callbacks.Callback] = (),
    log: Log | None = None,
    checkpoint: callbacks.TrainingCheckpoint | None = None,
) -> dict:
    """Trains your own model on your own dataset; writes files and resumes runs like `train`.

    Args:
        model, dataset, epochs, steps_per_epoch: A compiled `SAGAN`, and the arguments of its `fit`.
        output: String or path, the folder of the run.
        record: JSON-serializable dictionary with the first entries of `run.json`. If the record
            contains `class_names`, a list of strings, figures show these names.
        evaluator: `FIDEvaluator` that measures the FID, or `None`.
        real_images: Tuple of images and their labels (or `None`) for the figure of the
            discriminator's attention. Without images, this figure isn't drawn.
        build_untrained: Function that returns the untrained model. After training, the FID of the
            untrained model is measured for comparison.
        others: List of additional callbacks.
        log: As in `train`.
        checkpoint: `TrainingCheckpoint`, by default one that saves to `output/checkpoints`.

    Raises:
        KeyboardInterrupt: After Ctrl-C, once the run is saved.
        ValueError: If training stopped because a loss or a weight isn't finite, or the networks
            share layers, so that the model can't be saved.
        RuntimeError, OSError: As in `train`.
    """
    check_unshared(model.generator, model.discriminator)  # The run ends by saving the model.
    output, log = Path(check_path("output", output)), log or Log(["fit"])
    is_first = is_chief(getattr(model, "distribute_strategy", None))
    log.folder = output if is_first else None
    # All processes draw figures and evaluate, but only the first one keeps the results.
    with locked(output) if is_first else tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        checkpoint = checkpoint or callbacks.TrainingCheckpoint(output / "checkpoints")
        evaluators = [evaluator] if evaluator else []
        history = callbacks.RunHistory(output / "history.json", evaluators)
        known = read_record(output).get("fid", {})
        writer = RecordWriter(folder, {"fid": known, **(record or {})} if known else record, log)
        if evaluator:
            evaluator.set_model(model)
            # If the run is killed and resumed, its protocol is compared with this one.
            start = {"name": evaluator.name, "protocol": evaluator.protocol}
            writer.content.setdefault("fid", start)
            old = list(evaluator.history)
            # The best checkpoint of another protocol stays until the first new distance.
            checkpoint.protocol = {name: evaluator.protocol.get(name) for name in COMPARED}
        stop, names = callbacks.StopOnNonFinite(), writer.content.get("class_names")
        parts = [stop, callbacks.AttentionMonitor(), callbacks.CollapseMonitor()]
        parts.append(callbacks.SampleGrid(folder, class_names=names, gif=True))
        if model.attention_gammas():
            labels = real_images[1] if model.num_classes else None
            real = {"real_images": real_images[0], "real_labels": labels}
            parts.append(callbacks.AttentionFigure(folder, class_names=names, **real))
        # The checkpoint callback comes last, so that all other callbacks are done when it saves.
        parts += [*evaluators, *others, writer, history, checkpoint]
        length = {"epochs": epochs, "steps_per_epoch": steps_per_epoch}
        try:
            model.fit(dataset, **length, callbacks=parts, verbose="auto" if is_first else 0)
        except KeyboardInterrupt as error:
            if not (step := int(model.steps.numpy())):
                raise
            for part in (checkpoint, history, writer):
                part.save()
            message = f" after step {step}; the same command again resumes the run"
            raise KeyboardInterrupt(message) from error
        if stop.reason:
            raise ValueError(f"{stop.reason} The newest of {checkpoint.directory} is from before.")
        model.save(folder / "model.keras")
        gammas = {name: float(value) for name, value in model.attention_gammas().items()}
        results = {"steps": int(model.steps.numpy()), "attention_gamma": gammas}
        if evaluator:
            new = [pair for pair in evaluator.history if pair not in old]
            if new and (changed := differences(known, evaluator)):
                log.say(f"Earlier {evaluator.name} are dropped: {', '.join(changed)} changed.")
                evaluator.history = new
                history.history.pop(evaluator.name, None)
            if build_untrained and 0 not in dict(evaluator.history):
                # Evaluate the untrained model last, so that training doesn't have to wait for it.
                evaluator.set_model(build_untrained())
                evaluator.record(0)
            history.save()
            by_epoch = sorted(evaluator.history)
            results["fid"] = fid = {"name": evaluator.name, "by_epoch": by_epoch}
            fid |= {"start": by_epoch[0][1], "end": by_epoch[-1][1]} if by_epoch else {}
            fid["protocol"] = protocol = evaluator.protocol
            is_measured = new or protocol["reference_sha256"] is not None
            if known.get("name") == evaluator.name and not is_measured:
                fid["protocol"] = known["protocol"]
            for epoch, value in by_epoch:
                log.say(f"{evaluator.name} after {epoch} epochs: {value:.1f}")
        if history.history:
            plot_curves(history.history, folder / "curves.png")
        writer.save({**results, "finished": {"epochs": epochs, "step": results["steps"]}})
        log.say(f"Pictures, model.keras and run.json are in {output}/")
        return writer.content


def differences(known, evaluator):
    """Returns the entries in which the protocols of a known FID and of an evaluator differ."""
    if known.get("name") != evaluator.name:
        return []
    old, new = known["protocol"], evaluator.protocol
    pairs = {name: (old.get(name), new.get(name)) for name in COMPARED}
    return [name for name, pair in pairs.items() if None not in pair and pair[0] != pair[1]]


class RecordWriter(keras.callbacks.Callback):
    """Writes `run.json`, but not before the first step, so that a failed start leaves no file."""

    def __init__(self, folder, record, log):
        super().__init__()
        self.path, self.content, self.log = folder / "run.json", dict(record or {}), log
        self._began = time.perf_counter() - read_record(folder).get("seconds", 0)

    def on_train_begin(self, logs=None):
        networks = (self.model.generator, self.model.discriminator)
        cpu = platform.processor() or platform.machine()
        self.content |= {
            "command": shlex.join(["python", *sys.orig_argv[1:]]),
            "versions": package_versions(),
            "hardware": {"cpu": cpu, "cores": os.cpu_count()},
            "parameters": {network.name: network.count_params() for network in networks},
        }

    def on_train_batch_end(self, batch, logs=None):
        if "seconds" not in self.content:
            self.save()
            self.log.write("The first step is done.")  # The log moves into the run's folder.

    def on_epoch_end(self, epoch, logs=None):
        values = ", ".join(f"{name} {value:.5g}" for name, value in (logs or {}).items())
        self.log.write(f"epoch {epoch + 1}: {values}")
        self.save()

    def save(self, results=None):
        """Writes the file, including `results` at the end of a run."""
        self.content["seconds"] = round(time.perf_counter() - self._began, 1)
        self.content |= results or {}
        text = json.dumps(self.content, indent=2) + "\n"
        replace_file(self.path, lambda file: file.write(text.encode()))


@contextlib.contextmanager
def locked(folder):
    """Creates a folder and locks it until the `with` block or the process ends."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        file = open(folder / "run.lock", "ab")
    except OSError as error:
        text = f"--output must be a folder that can be written. Received: {folder} ({error})"
        raise OSError(text) from error
    with file:
        try:
            import fcntl

            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            text = f"--output must be a folder that no other process trains in. Received: {folder}"
            raise RuntimeError(text) from None
        except (ImportError, OSError):
            pass  # The operating system or the file system doesn't support locks.
        yield folder


def read_record(folder):
    """Returns the content of a run's `run.json`, or an empty dictionary if there is none."""
    path = Path(folder) / "run.json"
    if not path.exists():
        return {}
    try:
        content = {**json.loads(path.read_text(encoding="utf-8"))}
        for name in {"settings", "finished", "fid"} & content.keys():
            content[name] = {**content[name]}
        return content
    except (TypeError, ValueError) as error:
        text = f"{path} is damaged: remove it, and give the same options as when the run began."
        raise ValueError(f"{text} ({error})") from error


def check_same_run(output, known, wanted, newest):
    """Raises a ValueError if a folder contains another run, or files that would be overwritten."""
    if known and not {"class_names", "settings"} <= known.keys():
        origin = "a different program or an older version"
        raise ValueError(f"{ELSEWHERE} {output} with a run.json from {origin}")
    if not known and not newest:
        for found in sorted(path for name in WRITTEN for path in output.glob(name)):
            raise ValueError(f"{ELSEWHERE} {output} with {found.name} and without a run")
    known = known | known.get("settings", {})
    if known:  # An older record may lack newer options.
        known = {name: TRAIN[name].default for name in FIXED} | known
    for name in (*FIXED, "channels", "num_classes", "class_names"):
        if name in known and known[name] != wanted[name]:
            one, two = known[name], wanted[name]
            if name == "class_names":  # Show only the first difference.
                one, two = next(pair for pair in zip(one, two) if pair[0] != pair[1])
            pair = f"a run of {name}={one!r}, and {name}={two!r}"
            raise ValueError(f"{ELSEWHERE} {output} with {pair}")
