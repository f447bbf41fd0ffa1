"""All scores of a generator, or of images, from one pass of features."""

import contextlib
import os
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np

from keras_sagan.checks import (
    check_boolean,
    check_float,
    check_integer,
    check_list,
    check_path,
    check_string,
)
from keras_sagan.metrics.features import FeatureExtraction, FeatureMetric
from keras_sagan.metrics.frechet_inception_distance import FrechetInceptionDistance
from keras_sagan.metrics.frechet_inception_distance_infinity import FrechetInceptionDistanceInfinity
from keras_sagan.metrics.images import (
    STANDING_BATCH,
    GeneratedImages,
    batches_of,
    check_ends,
    first_images,
    length_of,
    noise_images,
)
from keras_sagan.metrics.inception_score import InceptionScore
from keras_sagan.metrics.intra_class_frechet_inception_distance import (
    IntraClassFrechetInceptionDistance,
)
from keras_sagan.metrics.kernel_inception_distance import KernelInceptionDistance
from keras_sagan.metrics.precision_recall import DensityCoverage, PrecisionRecall
from keras_sagan.metrics.progress import Progress
from keras_sagan.metrics.reference_statistics import ReferenceStatistics
from keras_sagan.metrics.report import (
    EvaluationReport,
    check_is_versioned,
    extractor_info,
    package_versions,
)
from keras_sagan.metrics.standing_statistics import standing_statistics

METRICS = {
    "fid": FrechetInceptionDistance,
    "kid": KernelInceptionDistance,
    "inception_score": InceptionScore,
    "precision_recall": PrecisionRecall,
    "density_coverage": DensityCoverage,
    "intra_fid": IntraClassFrechetInceptionDistance,
    "fid_infinity": FrechetInceptionDistanceInfinity,
}


def evaluate_generator(
    model: Any,
    reference: Any,
    metrics: str | Sequence = ("fid", "kid", "precision_recall", "density_coverage"),
    feature_extractor: Callable | None = None,
    num_images: int = 50_000,
    labels: str | np.ndarray = "uniform",
    seed: int = 0,
    batch_size: int = 64,
    use_ema: bool = True,
    truncation: float | None = None,
    standing_passes: int = 0,
    **kwargs,
) -> EvaluationReport:
    """Measures a generator by several scores in one pass of features.

    Exactly `num_images` images are generated, from latents and labels that depend only on the
    seed. The batch size changes scores by less than 1e-6.

    Args:
        model: A `SAGAN`, or anything with its `generate()`, `latent_dim` and `num_classes`; or a
            Keras model from latents, or from [latents, labels], to images in [-1, 1].
        reference: The real images: uint8 arrays, a pair of arrays (images, labels), a finite
            iterable of batches of either; `ReferenceStatistics`; or the path of a `.npz` file of
            statistics, of this package, pytorch-fid, clean-fid or torch-fidelity.
        metrics: Names from `METRICS`, or metrics of this package that share one extractor.
        feature_extractor: The extractor, required for metrics given by name.
        num_images: How many images are generated. Defaults to `50000`.
        labels: `"uniform"`, all classes in turn and so in equal number, as in `FIDEvaluator`;
            `"reference"`, the reference's class frequencies; or an integer array of shape
            (num_images,). Defaults to `"uniform"`.
        seed: The seed of latents, labels and noise. Defaults to `0`.
        batch_size: How many images are generated and measured at once. Defaults to `64`.
        use_ema: Whether to use the averaged generator if there is one. Defaults to `True`.
        truncation: Positive float at which latents are truncated. Defaults to `None`: never.
        standing_passes: The number of forward passes, of 64 images each, over which batch
            statistics are estimated. Defaults to `0`: the moving statistics of training are used.
        **kwargs: `dataset`, `split`, `held_out`, `value_range`, `num_reference`, `cache_dir`,
            `strategy` and `verbose`, as in `evaluate_images`.

    Raises:
        ValueError: If an argument is invalid, the reference is of another extractor or doesn't
            hold what a metric needs, or images or features are of the wrong kind.

    Example:

    ```python
    real, extractor = (test_images, test_labels), GreyClassifierFeatures()
    report = evaluate_generator(model, real, ("fid", "kid"), extractor, 10_000, dataset="photos")
    print(report)
    report.save("report.json")
    ```
    """
    # These checks come before the reference is read, which may take long.
    num_images = check_integer("num_images", num_images, 2)
    use_ema = check_boolean("use_ema", use_ema)
    truncation = check_float("truncation", truncation, above=0, optional=True)
    standing_passes = check_integer("standing_passes", standing_passes, 0)
    evaluation = make_evaluation(reference, metrics, feature_extractor, batch_size, seed, **kwargs)
    counts, strategy = evaluation.reference.class_counts, kwargs.get("strategy")
    images = GeneratedImages(
        model, num_images, labels, counts, seed, batch_size, use_ema, truncation, strategy
    )
    protocol, name, standing = images.protocol, images.name, contextlib.nullcontext()
    if standing_passes:
        protocol["batch_statistics"] = f"standing, {standing_passes} passes of {STANDING_BATCH}"
        total = standing_passes * STANDING_BATCH
        progress = Progress("Standing statistics", total, evaluation.verbose)
        batches = images.standing_batches(standing_passes, seed, progress)
        standing = standing_statistics(images.network, batches)
    with standing:
        return evaluation.report(images.batches(), num_images, protocol, name)


def evaluate_images(
    images: Iterable,
    reference: Any,
    metrics: str | Sequence = ("fid", "kid", "precision_recall", "density_coverage"),
    feature_extractor: Callable | None = None,
    num_images: int | None = None,
    name: str = "images",
    seed: int = 0,
    batch_size: int = 64,
    **kwargs,
) -> EvaluationReport:
    """Measures images that exist already, such as a folder of samples; see `evaluate_generator`.

    Args:
        images: uint8 images, or floats in `value_range`: an array, a pair of arrays (images,
            labels), or an iterable of batches of either.
        reference, metrics, feature_extractor: As in `evaluate_generator`.
        num_images: How many of the images to take; required for an iterable. Defaults to all.
        name: What the images are called in the report.
        seed: The seed of the noise. Defaults to `0`.
        batch_size: How many images are measured at once. Defaults to `64`.
        **kwargs:
            dataset: The name of the reference in the report.
            split: The name of its split.
            held_out: Other real images, as `reference`, for the real baseline. Defaults to one
                half of the reference against the other.
            value_range: The pair `(low, high)` of float images. Defaults to `None`.
            num_reference: How many of the reference's images to take, from the first on; required
                for an endless iterable, such as `load_tfds` returns. Defaults to all.
            cache_dir: A folder for the statistics of the reference, and for its features if a
                metric needs them, by `dataset`, `split`, size and extractor. An iterable without
                `num_images` then needs `num_reference`. Defaults to `None`: they are computed each
                time.
            strategy: `tf.distribute.Strategy` whose replicas share the work of the extractor, and
                of a generator that is a Keras network.
            verbose: Whether to show a bar if it takes more than ten seconds. Defaults to `True`.

    Raises:
        ValueError: As `evaluate_generator`, and if there are fewer than `num_images` images.
    """
    num_images = length_of(images) if num_images is None else num_images
    if num_images is None:
        raise ValueError(
            "`num_images` must be given for an iterable of batches. Received: num_images=None"
        )
    num_images = check_integer("num_images", num_images, 2)
    name = check_string("name", name)
    evaluation = make_evaluation(reference, metrics, feature_extractor, batch_size, seed, **kwargs)
    images = first_images(images, num_images, batch_size, "num_images")
    protocol = dict.fromkeys(("weights", "batch_statistics", "labels", "truncation"), "not stated")
    protocol |= {"labels": "as given", "seed": evaluation.seed}
    return evaluation.report(batches_of(images, batch_size), num_images, protocol, name)


def make_evaluation(
    reference,
    metrics,
    feature_extractor,
    batch_size,
    seed,
    dataset=None,
    split=None,
    held_out=None,
    value_range=None,
    num_reference=None,
    cache_dir=None,
    strategy=None,
    verbose=True,
):
    """Returns an `Evaluation` that has its reference; the arguments of `evaluate_images`."""
    seed = check_integer("seed", seed, 0)
    verbose = check_boolean("verbose", verbose)
    dataset = check_string("dataset", dataset, optional=True)
    split = check_string("split", split, optional=True)
    cache_dir = check_path("cache_dir", cache_dir, optional=True)
    metrics = _make_metrics(metrics, feature_extractor, value_range, batch_size)
    ranges = {x.value_range for x in metrics} - {None}
    if value_range is None and len(ranges) == 1:
        (value_range,) = ranges
    extractor = metrics[0].feature_extractor
    extraction = FeatureExtraction(extractor, value_range, batch_size, strategy)
    if cache_dir is not None:
        check_is_versioned(extractor, "cache_dir")
    if num_reference is not None:
        num_reference = check_integer("num_reference", num_reference, 2)
        if isinstance(reference, (str, os.PathLike, ReferenceStatistics)):
            raise ValueError(
                "`num_reference` is for images, and can't be given with statistics. "
                f"Received: num_reference={num_reference}, reference={reference}"
            )
        reference = first_images(reference, num_reference, batch_size, "num_reference")
    check_ends(reference, "reference")
    if held_out is not None and length_of(held_out) is None:
        raise ValueError(
            f"`held_out` must be arrays or have `num_images`. Received: held_out={held_out!r}"
        )
    evaluation = Evaluation(metrics, extraction, verbose, seed, held_out)
    evaluation.set_reference(reference, dataset or "unnamed", split, cache_dir)
    return evaluation


class Evaluation:
    """What `FIDEvaluator`, `evaluate_generator` and `evaluate_images` share.

    Args:
        metrics: Metrics of this package that share one extractor; or, without an `extraction`, one
            object with `update_state(images, real=…)` and `reset_state(reset_real=…)`.
        extraction: `FeatureExtraction` of their extractor, or `None`.
        verbose: Whether anything that takes more than ten seconds shows a bar.
        seed: The seed of the noise. Defaults to `0`.
        held_out: Other real images, for the real baseline. Defaults to `None`.
    """

    def __init__(self, metrics, extraction, verbose, seed=0, held_out=None):
        self.metrics, self.extraction, self.verbose = metrics, extraction, verbose
        self.seed, self.held_out, self.reference = seed, held_out, None
        if extraction is not None:
            extraction.verbose = verbose
            self.names = tuple(sorted({x.output for x in metrics}))  # "features" before "logits"
            for metric in metrics:
                metric.verbose = verbose

    def set_reference(self, reference, dataset: str, split: str | None, cache_dir: str | None):
        """Reads the real images or their statistics, and gives them to the metrics."""
        if isinstance(reference, (str, os.PathLike)):
            reference = ReferenceStatistics.load(reference, self.extraction.feature_extractor)
        elif isinstance(reference, ReferenceStatistics):
            reference.check_extractor(self.extraction.feature_extractor, "a reference")
        else:
            reference = self._computed(reference, dataset, split, cache_dir)
        self.reference = reference
        for metric in self.metrics:
            metric.set_statistics(reference, real=True)

    def _computed(self, reference, dataset, split, cache_dir):
        keep = {x.output for x in self.metrics if x.keeps.get("real") == "samples"}
        keep |= {"logits"} & set(self.names)  # for the real baseline of the Inception Score
        count = length_of(reference)
        options = {"names": self.names, "keep": sorted(keep)}
        options["progress"] = Progress("Reference images", count, self.verbose)
        self.extraction.subject = "reference images"
        if cache_dir is None:
            return ReferenceStatistics.compute(
                reference, self.extraction, dataset, split, **options
            )
        if dataset == "unnamed" or count is None:
            raise ValueError(
                "`cache_dir` needs the `dataset`'s name, and `num_reference` for a reference of "
                f"unknown length. Received: dataset={dataset!r}, a reference of length {count}"
            )
        return ReferenceStatistics.cached(
            reference, self.extraction, dataset, split, count, cache_dir, **options
        )

    def update(self, images: np.ndarray, labels: np.ndarray | None, real: bool, done: int):
        """Adds a batch, which follows `done` images, to one side of all metrics."""
        if self.extraction is None:
            self.metrics[0].update_state(images, real=real)
            return
        features = self.extraction(images, self.names, done)
        if not features:  # A batch of no images.
            return
        width = features[self.names[0]].shape[1]
        if self.reference is not None and width != len(self.reference.moments.mean):
            raise ValueError(
                "`reference` must be measured with the same extractor as the images, which "
                f"returns features of width {width}. Received: {self.reference.info['dataset']} "
                f"of width {len(self.reference.moments.mean)}"
            )
        for metric in self.metrics:
            metric.update_features(features[metric.output], real, labels)

    def measure(self, batches: Iterable, num_images: int, title: str) -> tuple[int, ...]:
        """Replaces the generated side of the metrics; returns the shape of an image."""
        for metric in self.metrics:
            metric.reset_state(reset_real=False)
        progress = Progress(title, num_images, self.verbose)
        if self.extraction is not None:
            self.extraction.subject = title[0].lower() + title[1:]
        done, shape = 0, ()
        for images, labels in batches:
            self.update(images, labels, False, done)
            done, shape = done + len(images), images.shape[1:]
            progress(done)
        if done != num_images:
            raise ValueError(
                f"`images` must hold num_images={num_images} images. Received: {done} images"
            )
        return tuple(map(int, shape))

    def protocol(self, num_images: int, made: dict, info: dict, name: str | None = None) -> dict:
        """Returns what a reader must know beside the scores, ready for JSON.

        `made` says how the generated images were made, `info` what the real ones are, as in
        `ReferenceStatistics.info`, and `name` what the only metric is called.
        """
        extractor = getattr(self.metrics[0], "feature_extractor", None)
        return {
            "num_generated": num_images,
            "reference": info["dataset"],
            "reference_split": info["split"],
            "num_reference": info["num_images"],
            "reference_sha256": info["sha256"],
            "reference_extractor_is_known": info.get("feature_extractor", extractor) is not None,
            **({} if extractor is None else extractor_info(extractor)),
            "metrics": {
                name or x.name: getattr(x, "definition", type(x).__name__) for x in self.metrics
            },
            **made,
            "versions": package_versions(),
        }

    def report(self, batches: Iterable, num_images: int, made: dict, name: str) -> EvaluationReport:
        """Measures batches, pairs (images, labels or `None`), and the two baselines.

        `made` says how the images were made, for the protocol, and `name` what is measured.
        """
        protocol = self.protocol(num_images, made, self.reference.info)
        shape = self.measure(batches, num_images, "Generated images")
        values = self._values()
        notes = [note for metric in self.metrics for note in metric.notes()]
        kept = [metric.snapshot() for metric in self.metrics]
        noise = self._noise(num_images, shape)
        baselines = {"real": self._real(), "noise": noise}
        for metric, state in zip(self.metrics, kept):
            metric.restore(state)
        return EvaluationReport(values, baselines, protocol, name, notes)

    def _values(self, notes=None, halves=()):
        """Returns the values of all metrics, of two halves of the reference if they are given.

        Without a list of `notes`, which gets the failures, the first failure is raised.
        """
        values = {}
        for metric in self.metrics:
            try:
                for half, real in zip(halves, (True, False)):
                    metric.set_statistics(half, real)
                values.update(metric.values())
            except ValueError as error:
                if notes is None:
                    raise
                notes.append(f"no {metric.name}: {error}")
        return values

    def _baseline(self, num_images, notes=(), halves=()):
        notes = list(notes)
        values = self._values(notes, halves)
        note = {"note": "; ".join(notes)} if notes else {}
        return {**values, **note, "num_images": num_images}

    def _noise(self, num_images, shape):
        """Returns the scores of noise in place of generated images."""
        labels, size = self.reference.arrays.get("labels"), self.extraction.batch_size
        parts = [None] * num_images
        if labels is not None:  # Spread over all, since labels may be sorted by class.
            labels = labels[np.arange(num_images) * len(labels) // num_images]
            parts = np.split(labels, range(size, num_images, size))
        batches = zip(noise_images(num_images, shape, self.seed, size), parts)
        self.measure(batches, num_images, "Noise")
        return self._baseline(num_images)

    def _real(self):
        """Returns the scores of other real images in place of generated ones."""
        if self.held_out is not None:
            count = length_of(self.held_out)
            batches = batches_of(self.held_out, self.extraction.batch_size)
            self.measure(batches, count, "Held-out images")
            return self._baseline(count)
        if self.reference.halves is None:
            return {"note": "the file has only `mu` and `sigma`: give `held_out` images"}
        halves = self.reference.split()
        count = halves[1].num_images
        note = (
            f"one half of the reference, {count} images, against the other; a Fréchet distance is "
            "larger for fewer images, so the generated images may have a lower one. With "
            "`held_out` images this baseline has their number"
        )
        return self._baseline(count, [note], halves)


def _make_metrics(metrics, feature_extractor, value_range, batch_size):
    """Returns metric objects that share one extractor."""
    is_one = isinstance(metrics, (str, FeatureMetric))
    metrics, result = [metrics] if is_one else check_list("metrics", metrics), []
    for metric in metrics:
        if isinstance(metric, str) and metric in METRICS:
            if feature_extractor is None:
                raise ValueError(
                    "`feature_extractor` must be given for metrics by name. "
                    f"Received: metrics={metrics}, feature_extractor=None"
                )
            metric = METRICS[metric](feature_extractor, value_range, batch_size=batch_size)
        if not isinstance(metric, FeatureMetric):
            raise ValueError(
                f"`metrics` must be names among {list(METRICS)} or metrics of this package. "
                f"Received: {metric!r}"
            )
        result.append(metric)
    extractors = {id(metric.feature_extractor) for metric in result}
    given = set() if feature_extractor is None else {id(feature_extractor)}
    if len(extractors | given) != 1 or not result:
        raise ValueError(
            "`metrics` must share one extractor, and not be empty. "
            f"Received: {len(result)} metrics with {len(extractors)} extractors"
        )
    return result
