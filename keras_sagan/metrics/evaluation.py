"""All scores of a generator, or of images, from one pass of features."""

import contextlib
import os

import numpy as np

from keras_sagan.checks import (
    check_boolean,
    check_float,
    check_integer,
    check_list,
    check_path,
    check_string,
)
from keras_sagan.metrics.density_coverage import DensityCoverage
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
from keras_sagan.metrics.precision_recall import PrecisionRecall
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
    model,
    reference,
    metrics=("fid", "kid", "precision_recall", "density_coverage"),
    feature_extractor=None,
    num_images=50_000,
    labels="uniform",
    seed=0,
    batch_size=64,
    use_ema=True,
    truncation=None,
    standing_passes=0,
    **kwargs,
):
    """Measures a generator by several scores in one pass of features.

    Exactly `num_images` images are made, from latents and labels that depend on the seed and on
    nothing else. The batch size has no influence beyond 1e-6.

    Args:
        model: A `SAGAN`, or anything with its `generate()`, `latent_dim` and `num_classes`; or a
            Keras model from latents, or from [latents, labels], to images in [-1, 1].
        reference: The real images: uint8 arrays, a pair of arrays (images, labels), a finite
            iterable of batches of either; `ReferenceStatistics`; or the path of a `.npz` file of
            statistics, of this package, pytorch-fid, clean-fid or torch-fidelity.
        metrics: Names from `METRICS`, or metrics of this package that share one extractor.
        feature_extractor: The extractor for metrics that are given by name, which need it.
        num_images: Integer. Defaults to `50000`.
        labels: `"uniform"`, all classes in turn and so in equal number, as `FIDEvaluator` has
            them; `"reference"`, in the reference's frequencies; or an integer array of shape
            (num_images,). Defaults to `"uniform"`.
        seed: Integer, the seed of latents, labels, noise. Defaults to `0`.
        batch_size: Integer, how many images are made and measured at once. Defaults to `64`.
        use_ema: Boolean, whether to use the averaged generator if there is one. Defaults to
            `True`.
        truncation: `None`, or the positive float that latents are truncated at.
        standing_passes: Integer, the forward passes, of 64 images each, over which batch
            statistics are estimated anew. Defaults to `0`: the moving statistics of training.
        **kwargs: `dataset`, `split`, `held_out`, `value_range`, `num_reference`, `cache_dir`,
            `strategy` and `verbose`, as in `evaluate_images`.

    Returns:
        `EvaluationReport`.

    Raises:
        ValueError: If an argument is invalid, the reference is of another extractor or doesn't
            hold what a metric needs, or images or features are of the wrong kind.

    Example:

    ```python
    report = evaluate_generator(
        model,
        (test_images, test_labels),
        metrics=("fid", "kid", "intra_fid"),
        feature_extractor=GreyClassifierFeatures(),
        num_images=10_000,
        dataset="Fashion-MNIST",
        split="test",
    )
    print(report)
    report.save("report.json")
    ```
    """
    # Before the reference is read, which may take long.
    num_images = check_integer("num_images", num_images, 2)
    use_ema = check_boolean("use_ema", use_ema)
    truncation = check_float("truncation", truncation, above=0, optional=True)
    standing_passes = check_integer("standing_passes", standing_passes, 0)
    evaluation = make_evaluation(reference, metrics, feature_extractor, batch_size, seed, **kwargs)
    source = GeneratedImages(
        model,
        num_images,
        labels,
        evaluation.reference.class_counts,
        seed,
        batch_size,
        use_ema,
        truncation,
        kwargs.get("strategy"),
    )
    protocol, name, standing = source.protocol, source.name, contextlib.nullcontext()
    if standing_passes:
        protocol["batch_statistics"] = f"standing, {standing_passes} passes of {STANDING_BATCH}"
        total = standing_passes * STANDING_BATCH
        progress = Progress("Standing statistics", total, evaluation.verbose)
        batches = source.standing_batches(standing_passes, seed, progress)
        standing = standing_statistics(source.network, batches)
    with standing:
        return evaluation.report(source.batches(), num_images, protocol, name)


def evaluate_images(
    images,
    reference,
    metrics=("fid", "kid", "precision_recall", "density_coverage"),
    feature_extractor=None,
    num_images=None,
    name="images",
    seed=0,
    batch_size=64,
    **kwargs,
):
    """Measures images that exist already, such as a folder of samples; see `evaluate_generator`.

    Args:
        images: uint8 images, or floats in `value_range`: an array, a pair of arrays (images,
            labels), or an iterable of batches of either.
        reference: As in `evaluate_generator`.
        metrics: As in `evaluate_generator`.
        feature_extractor: As in `evaluate_generator`.
        num_images: Integer, how many of the images to take. Defaults to all of them; an iterable
            must have it said.
        name: String, what the images are called in the report.
        seed: Integer, the seed of the noise. Defaults to `0`.
        batch_size: Integer, how many images are measured at once. Defaults to `64`.
        **kwargs:
            dataset: String, the name of the reference in the report.
            split: String, the name of its split.
            held_out: Other real images, as `reference`, for the floor. Defaults to one half of
                the reference against the other.
            value_range: `None`, or the pair `(low, high)` of float images.
            num_reference: Integer, how many of the reference's images to take, from the first on;
                an endless iterable, such as `load_tfds` gives, must have it said. Defaults to all.
            cache_dir: A folder for the statistics of the reference, and for its features where a
                metric needs them, by its `dataset`, `split`, size and extractor. An iterable needs
                `num_reference` then, if it has no `num_images`. Defaults to `None`: computed each
                time.
            strategy: `tf.distribute.Strategy` whose replicas share the work of the extractor, and
                of a generator that is a Keras network.
            verbose: Boolean, whether to show a bar if it takes more than ten seconds. Defaults to
                `True`.

    Returns:
        `EvaluationReport`.

    Raises:
        ValueError: As `evaluate_generator`, and if there are fewer than `num_images` images.
    """
    if num_images is None:
        num_images = length_of(images)
    if num_images is None:
        raise ValueError(
            "`num_images` must be given for an iterable of batches. Received: num_images=None"
        )
    num_images = check_integer("num_images", num_images, 2)
    name = check_string("name", name)
    evaluation = make_evaluation(reference, metrics, feature_extractor, batch_size, seed, **kwargs)
    images = first_images(images, num_images, batch_size, "num_images")
    protocol = {
        "weights": "not stated",
        "batch_statistics": "not stated",
        "labels": "as given",
        "truncation": "not stated",
        "seed": evaluation.seed,
    }
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
    """Returns an `Evaluation` that has seen its reference; the arguments of `evaluate_images`."""
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
            f"`held_out` must be arrays or say its length. Received: held_out={held_out!r}"
        )
    evaluation = Evaluation(metrics, extraction, verbose, seed, held_out)
    evaluation.set_reference(reference, dataset or "unnamed", split, cache_dir)
    return evaluation


class Evaluation:
    """What `FIDEvaluator`, `evaluate_generator` and `evaluate_images` share.

    Args:
        metrics: List of metrics of this package that share one extractor, or with no `extraction`
            of one object with `update_state(images, real=…)` and `reset_state(reset_real=…)`.
        extraction: `FeatureExtraction` of their extractor, or `None`.
        verbose: Boolean, whether what takes more than ten seconds shows a bar.
        seed: Integer, the seed of the noise. Defaults to `0`.
        held_out: Other real images, for the floor. Defaults to `None`.
    """

    def __init__(self, metrics, extraction, verbose, seed=0, held_out=None):
        self.metrics, self.extraction, self.verbose = metrics, extraction, verbose
        self.seed, self.held_out, self.reference = seed, held_out, None
        if extraction is not None:
            extraction.verbose = verbose
            outputs = {metric.output for metric in metrics}
            self.names = tuple(sorted(outputs))  # "features" before "logits"
            for metric in metrics:
                metric.verbose = verbose

    def set_reference(self, reference, dataset, split, cache_dir):
        """Reads the real images, or takes their statistics; the metrics have them then."""
        self.reference = self._reference(reference, dataset, split, cache_dir)
        for metric in self.metrics:
            metric.set_statistics(self.reference, real=True)

    def _reference(self, reference, dataset, split, cache_dir):
        extractor = self.extraction.feature_extractor
        if isinstance(reference, (str, os.PathLike)):
            return ReferenceStatistics.load(reference, extractor)
        if isinstance(reference, ReferenceStatistics):
            known = {name: reference.info[name] for name in ("feature_extractor", "resize")}
            wanted = extractor_info(extractor)
            if any(known[name] not in (None, wanted[name]) for name in wanted):
                raise ValueError(
                    f"`reference` must be of the metrics' extractor, {wanted}. Received: a "
                    f"reference of {known}"
                )
            return reference
        keep = {need for x in self.metrics for need in x.real_needs} - {"labels"}
        if "logits" in self.names:
            keep.add("logits")  # for the floor of the Inception Score
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
                "`cache_dir` needs the `dataset`'s name, and `num_reference` for a reference that "
                f"doesn't say its length. Received: dataset={dataset!r}, a reference of length "
                f"{count}"
            )
        return ReferenceStatistics.cached(
            reference, self.extraction, dataset, split, count, cache_dir, **options
        )

    def update(self, images, labels, real, done):
        """Feeds a batch, of which `done` images came before, to one side of all metrics."""
        if self.extraction is None:
            self.metrics[0].update_state(images, real=real)
            return
        features = self.extraction(images, self.names, done)
        if not features:  # A batch of no images.
            return
        width = features[self.names[0]].shape[1]
        if self.reference is not None and width != len(self.reference.moments.mean):
            raise ValueError(
                "`reference` must be of the extractor that the images are compared in, which "
                f"gives features of width {width}. Received: {self.reference.info['dataset']} "
                f"of width {len(self.reference.moments.mean)}"
            )
        for metric in self.metrics:
            metric.update_features(features[metric.output], real, labels)

    def measure(self, batches, num_images, title):
        """Feeds the generated side of the metrics; returns the shape of an image."""
        for metric in self.metrics:
            metric.reset_state(reset_real=False)
        progress = Progress(title, num_images, self.verbose)
        if self.extraction is not None:
            self.extraction.subject = title[0].lower() + title[1:]
        done, shape = 0, None
        for images, labels in batches:
            self.update(images, labels, False, done)
            done, shape = done + len(images), images.shape[1:]
            progress(done)
        if done != num_images:
            raise ValueError(
                f"`images` must hold num_images={num_images} images. Received: {done} images"
            )
        return tuple(map(int, shape))

    def protocol(self, num_images, made, info, name=None):
        """Returns what a reader must know beside the scores, ready for JSON.

        Args:
            num_images: Integer, how many images are measured.
            made: Dictionary, of how they were made.
            info: Dictionary, of what the real images are, as `ReferenceStatistics` has it.
            name: String, what the one metric is called. Defaults to the metrics' own names.
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

    def report(self, batches, num_images, made, name):
        """Measures images and the two baselines.

        Args:
            batches: Iterable of pairs (images, labels or `None`).
            num_images: Integer, how many they are.
            made: Dictionary for the protocol, of how they were made.
            name: String, what is measured.

        Returns:
            `EvaluationReport`.
        """
        protocol = self.protocol(num_images, made, self.reference.info)
        shape = self.measure(batches, num_images, "Generated images")
        values = self._values()
        notes = [note for metric in self.metrics for note in metric.notes()]
        kept = [metric.snapshot() for metric in self.metrics]
        noise = self._noise(num_images, shape)
        baselines = {"real": self._floor(), "noise": noise}
        for metric, state in zip(self.metrics, kept):
            metric.restore(state)
        return EvaluationReport(values, baselines, protocol, name, notes)

    def _values(self, note=None):
        """The values of all metrics; with a list of notes, failures go there."""
        values = {}
        for metric in self.metrics:
            try:
                values.update(metric.values())
            except ValueError as error:
                if note is None:
                    raise
                note.append(f"no {metric.name}: {error}")
        return values

    def _noise(self, num_images, shape):
        """The scores of noise in place of generated images."""
        labels, size = self.reference.arrays.get("labels"), self.extraction.batch_size
        parts = [None] * num_images
        if labels is not None:  # Of all classes, also where they stand in order.
            labels = labels[np.arange(num_images) * len(labels) // num_images]
            parts = np.split(labels, range(size, num_images, size))
        batches = zip(noise_images(num_images, shape, self.seed, size), parts)
        self.measure(batches, num_images, "Noise")
        note = []
        return {**self._values(note), **_notes(note), "num_images": num_images}

    def _floor(self):
        """The scores of other real images in place of generated ones."""
        note = []
        if self.held_out is not None:
            count = length_of(self.held_out)
            batches = batches_of(self.held_out, self.extraction.batch_size)
            self.measure(batches, count, "Held-out images")
            return {**self._values(note), "num_images": count, **_notes(note)}
        if self.reference.halves is None:
            return _notes(["the file has `mu` and `sigma` alone: give `held_out` images"])
        first, second = self.reference.split()
        values = {}
        for metric in self.metrics:
            try:
                metric.set_statistics(first, real=True)
                metric.set_statistics(second, real=False)
                values.update(metric.values())
            except ValueError as error:
                note.append(f"no {metric.name}: {error}")
        note = [
            f"one half of the reference, {second.num_images} images, against the other; a Fréchet "
            "distance is larger for fewer images, so the generated images may have a lower one. "
            "`held_out` images give a floor of their own number",
            *note,
        ]
        return {**values, "num_images": second.num_images, **_notes(note)}


def _make_metrics(metrics, feature_extractor, value_range, batch_size):
    """Metric objects that share one extractor."""
    if isinstance(metrics, (str, FeatureMetric)):
        metrics = [metrics]
    metrics = check_list("metrics", metrics)
    result = []
    for metric in metrics:
        if isinstance(metric, str) and metric in METRICS:
            if feature_extractor is None:
                raise ValueError(
                    "`feature_extractor` must be given for metrics by name. "
                    f"Received: metrics={metrics}, feature_extractor=None"
                )
            metric = METRICS[metric](
                feature_extractor, value_range=value_range, batch_size=batch_size
            )
        if not isinstance(metric, FeatureMetric):
            raise ValueError(
                f"`metrics` must be names among {list(METRICS)} or metrics of this package. "
                f"Received: {metric!r}"
            )
        result.append(metric)
    extractors = {id(metric.feature_extractor) for metric in result}
    if len(extractors) != 1 or (
        feature_extractor is not None and id(feature_extractor) not in extractors
    ):
        raise ValueError(
            "`metrics` must share one extractor, and be at least one. "
            f"Received: {len(result)} metrics with {len(extractors)} extractors"
        )
    return result


def _notes(notes):
    return {"note": "; ".join(notes)} if notes else {}
