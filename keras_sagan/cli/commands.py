"""The commands of `keras-sagan`."""

import os
from pathlib import Path

import keras
import numpy as np

from keras_sagan import metrics, models
from keras_sagan import run as runs
from keras_sagan import visualization as draw
from keras_sagan.checks import check_integer
from keras_sagan.metrics.evaluation import check_same_channels
from keras_sagan.metrics.precision_recall import ENOUGH_IMAGES
from keras_sagan.metrics.report import package_versions
from keras_sagan.options import DATA, TRAIN
from keras_sagan.sources import extractor_for, named, open_source, read_folder
from keras_sagan.visualization.model_pictures import rows_of_samples
from keras_sagan.visualization.names import spread_classes
from keras_sagan.visualization.query_points import MAX_IMAGES, MAX_POINTS, check_count

MAX_COLUMNS = 100  # The maximum number of images in a row; wider pictures take minutes to draw.


def run(log, settings):
    """Runs the command described by the dictionary `settings`."""
    # `train` has no `run` argument; `runs.train` sets `log.folder` later.
    log.folder = beside(settings["run"]) if settings.get("run") else None
    log.write(", ".join(map(" ".join, package_versions().items())))
    globals()[settings["command"]](log, settings)


def train(log, settings):
    runs.train(log, **{name: settings[name] for name in TRAIN})


def sample(log, settings):
    columns, kind = settings["columns"], settings["kind"]
    check_integer("columns", columns, 1, MAX_COLUMNS, expected=f"at most {MAX_COLUMNS}")
    model, known = load_run(settings["run"])
    path = Path(settings["output"] or beside(settings["run"]) / f"{kind}.png")
    if path.is_dir():
        raise ValueError(f"--output must be a file, not a folder. Received: {path}")
    names, num_classes = known.get("class_names"), model.num_classes
    labels, ends = (class_ids(settings[x], names) for x in ("classes", "to_classes"))
    if kind == "classes" and num_classes is None:
        raise ValueError("`--kind classes` needs a model with classes. Received: a model without")
    if ends is not None and kind != "classes":
        raise ValueError("--to-classes needs --kind classes.")
    common = {"seed": settings["seed"], "truncation": settings["truncation"], "class_names": names}
    if labels is None and kind != "truncation":
        labels = spread_classes(num_classes, min(10, num_classes or 1))
    rows = 8 if labels is None else len(labels)
    if kind == "truncation":  # In truncation pictures, each column shows one class.
        if settings["truncation"] is not None:
            raise ValueError("--kind truncation can't be combined with --truncation.")
        if labels is not None and rows > columns:
            text = f"--columns must be at least the {rows} of --classes. Received: {columns}"
            raise ValueError(text)
        labels = labels and [labels[column * rows // columns] for column in range(columns)]
        draw.draw_truncation(model, path, columns=columns, labels=labels, seed=settings["seed"])
    elif kind == "grid":
        draw.save_image(path, rows_of_samples(model, columns, labels, rows, **common))
    else:
        if kind == "classes" and ends is None:
            ends = np.roll(labels, -1)
        draw.draw_interpolation(model, path, rows, columns, labels, ends, **common)
    log.say(path)


def class_ids(classes, names):
    """Converts a list of class names or numbers to class ids; returns `None` for `None`."""
    ids = {name: number for number, name in enumerate(names or ())}
    for word in classes or ():
        if word not in ids and not word.lstrip("-").isdecimal():
            known = f"one of {list(ids)}, or a number" if ids else "a number: classes have no names"
            raise ValueError(f"A class must be {known}. Received: {word!r}")
    return classes and [ids[word] if word in ids else int(word) for word in classes]


def attention(log, settings):
    check_count("num_points", settings["num_points"], MAX_POINTS)
    count = check_count("num_images", settings["num_images"], MAX_IMAGES)
    model, known = load_run(settings["run"])
    output = settings["output"] or beside(settings["run"])
    names = known.get("class_names") if model.num_classes else None
    common = {"num_points": settings["num_points"], "class_names": names}
    if settings["discriminator"]:
        trained_on = known.get("data")
        source = open_source(settings, model.image_shape[0], count, trained_on=trained_on)
        images, labels = source.head(count)
        labels = labels if model.num_classes else None
        name = "attention_discriminator"
        paths = draw.draw_attention(model, output, images, labels, name=name, **common)
    elif settings["images"] or settings["dataset"]:
        raise ValueError("--images and --dataset need --discriminator.")
    else:
        common |= {"num_images": count, "seed": settings["seed"]}
        paths = draw.draw_attention(model, output, **common)
    for path in paths.values():
        log.say(path)


def evaluate(log, settings):
    """Returns the `EvaluationReport` of a model or of a folder of generated images."""
    run, generated, batch_size = (settings[x] for x in ("run", "generated", "batch_size"))
    if (run is None) == (generated is None):
        raise ValueError("Give either a run or --generated with a folder of images.")
    path = settings["output"] and Path(settings["output"])
    common = {name: settings[name] for name in ("batch_size", "seed", "cache_dir")}
    held_out = settings["held_out"]
    if run is None:
        for option in ("raw_weights", "standing_passes", "truncation"):
            if settings[option]:
                raise ValueError(f"--{option.replace('_', '-')} needs a run.")
        if settings["labels"] != "uniform" or "intra_fid" in (settings["metrics"] or ()):
            option = "--labels" if settings["labels"] != "uniform" else "--metrics intra_fid"
            raise ValueError(f"{option} needs a run: the images of --generated have no classes.")
        images = _folder_images("--generated", generated, batch_size)
        shape, known, num_classes = next(iter(images)).shape[1:], {}, None
        measure, count = metrics.evaluate_images, settings["num_images"] or images.num_images
        what = {"images": images, "num_images": settings["num_images"], "name": images.folder.name}
    else:
        model, known = load_run(run, is_any=True)
        path = path or beside(run) / "report.json"
        is_sagan = isinstance(model, models.SAGAN)
        shape = model.image_shape if is_sagan else model.output_shape[1:]
        num_classes = model.num_classes if is_sagan else len(model.inputs) - 1
        measure, count = metrics.evaluate_generator, settings["num_images"] or 5000
        what = {name: settings[name] for name in ("labels", "standing_passes", "truncation")}
        what |= {"model": model, "num_images": count, "use_ema": not settings["raw_weights"]}
    if path and path.is_dir():
        raise ValueError(f"--output must be a file, not a folder. Received: {path}")
    reference, num_real, notes = settings["reference"], ENOUGH_IMAGES, []
    if reference is None:
        if shape[-1] != 1 and not (run or settings["images"] or settings["dataset"]):
            raise ValueError(
                "--generated with color images needs --reference, --images or --dataset."
            )
        source = open_source(settings, shape[0], 1, trained_on=known.get("data"))
        if shape[-1] == 1 and source.channels == 3 and settings["images"]:
            raise ValueError("--images needs --grey, because the generated images are gray.")
        images, labels = source.head(count)
        reference = (images, labels) if labels is not None and num_classes else images
        common |= {"dataset": source.name, "split": f"{len(images)} images, {source.chosen}"}
        num_real = len(images)
        if num_real < source.num_images:
            notes.append(
                f"memorization searches {num_real:,} of the {source.num_images:,} images of "
                f"{source.name} for copies. --num-images sets this number"
            )
        if held_out:  # Crop and resize these images like the reference.
            more = {"stream": settings["stream"]}
            found = read_folder("--held-out", held_out, shape[0], source.channels, **more)
            common["held_out"] = found.images
    elif given := [f"--{name.replace('_', '-')}" for name in DATA if settings[name]]:
        raise ValueError(f"--reference can't be combined with {' or '.join(given)}.")
    elif not reference.endswith(".npz"):
        reference = _folder_images("--reference", reference, batch_size)
        check_same_channels(shape, next(iter(reference)).shape)
        common["dataset"], num_real = reference.folder.name, reference.num_images
    if held_out and settings["reference"]:
        common["held_out"] = _folder_images("--held-out", held_out, batch_size)
    is_small = min(count, num_real) < ENOUGH_IMAGES and not isinstance(reference, str)
    default = ["kid"] * is_small + ["fid"]
    if not isinstance(reference, str):  # A statistics file has no images to compare.
        default.append("memorization")
    common["metrics"] = settings["metrics"] or default
    extractor = extractor_for(shape, settings, settings["extractor"])
    report = measure(reference=reference, feature_extractor=extractor, **what, **common)
    if "memorization" in common["metrics"]:
        report.notes += notes
    log.say(report)
    if path:
        path.parent.mkdir(parents=True, exist_ok=True)
        report.save(path)
        log.say(path)
    return report


def _folder_images(option, folder, batch_size):
    with named(option):
        return metrics.FolderImages(folder, batch_size)


def export(log, settings):
    model, _ = load_run(settings["run"])
    output = settings["output"] or beside(settings["run"]) / "export"
    files = models.export_generator(model, output, settings["formats"], seed=settings["seed"])
    for name, (path, difference) in files.items():
        log.say(f"{name}: {path}, largest pixel difference {difference:.1e}")


def beside(run):
    """Returns the folder of a run's results."""
    return Path(run) if os.path.isdir(run) else Path(run).parent


def load_run(path, is_any=False):
    """Returns the model in a folder or `.keras` file, and the content of `run.json` next to it."""
    path = Path(path) / "model.keras" if os.path.isdir(path) else Path(path)
    if not path.exists():
        text = "`keras-sagan train` writes it when the run is finished."
        raise ValueError(f"There is no model at {path}; {text}")
    if path.suffix != ".keras":
        raise ValueError(f"A model must be the folder of a run or a .keras file. Received: {path}")
    known = runs.read_record(path.parent)
    try:
        model = keras.saving.load_model(path)
    except (MemoryError, PermissionError):
        raise
    except Exception as error:  # Damaged files cause all kinds of errors.
        reason = (
            "it is damaged, or Keras didn't save it. Copy it again, or remove it and repeat the "
            "run's `keras-sagan train` command, which writes it from the newest checkpoint. "
            f"({type(error).__name__}: {error})"
        )
        if isinstance(error, TypeError):  # Keras raises TypeError for unregistered classes.
            reason = str(error).rpartition("Exception encountered: ")[2].partition("\n")[0]
            reason += " Load a model with custom classes in a script that imports them."
        raise ValueError(f"{path} can't be loaded: {reason}") from error
    if not (is_any or isinstance(model, models.SAGAN)):
        raise ValueError(f"{path} must hold a SAGAN. Received: a {type(model).__name__}")
    return model, known
