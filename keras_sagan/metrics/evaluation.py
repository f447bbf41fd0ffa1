"""Evaluates a generator or a set of images in one pass through the feature extractor."""

import contextlib
import os
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np

from keras_sagan.checks import (
    Progress,
    check_boolean,
    check_float,
    check_integer,
    check_list,
    check_path,
    check_string,
)
from keras_sagan.metrics.extraction import FeatureExtraction
from keras_sagan.metrics.features import FeatureMetric, FeatureSet
from keras_sagan.metrics.frechet_inception_distance import FrechetInceptionDistance
from keras_sagan.metrics.frechet_inception_distance_infinity import FrechetInceptionDistanceInfinity
from keras_sagan.metrics.images import (
    STANDING_BATCH,
    GeneratedImages,
    batches_of,
    is_endless,
    length_of,
    noise_images,
)
from keras_sagan.metrics.inception_score import InceptionScore
from keras_sagan.metrics.intra_class_frechet_inception_distance import (
    IntraClassFrechetInceptionDistance,
)
from keras_sagan.metrics.kernel_inception_distance import KernelInceptionDistance
from keras_sagan.metrics.memorization import Memorization
from keras_sagan.metrics.monge_inception_distance import MongeInceptionDistance
from keras_sagan.metrics.precision_recall import ENOUGH_IMAGES, DensityCoverage, PrecisionRecall
from keras_sagan.metrics.reference_statistics import ReferenceStatistics
from keras_sagan.metrics.report import EvaluationReport, check_is_versioned, make_protocol
from keras_sagan.metrics.standing_statistics import standing_statistics

METRICS = {
    "fid": FrechetInceptionDistance,
    "kid": KernelInceptionDistance,
    "inception_score": InceptionScore,
    "precision_recall": PrecisionRecall,
    "density_coverage": DensityCoverage,
    "intra_fid": IntraClassFrechetInceptionDistance,
    "fid_infinity": FrechetInceptionDistanceInfinity,
    "mind": MongeInceptionDistance,
    "memorization": Memorization,
}
DEFAULT_METRICS = ("fid", "kid", "precision_recall", "density_coverage", "memorization")

_BIAS = (
    f"A FID of fewer than {ENOUGH_IMAGES:,} images is mostly bias, and far from 0 even for real "
    "images"
)
_TRUST_KID = ". Trust the KID instead, and compare it with its floor in the column `real`"
_SIZES = (
    "The {} images have {} pixels and the reference images {}, so their scores include the "
    "difference in resolution. Resize one set to compare only the content"
)


def evaluate_generator(
    model: Any,
    reference: Any,
    metrics: str | Sequence = DEFAULT_METRICS,
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
    """Computes several scores of a generator in one pass through the feature extractor.

    Exactly `num_images` images are generated, from latents and labels that depend only on the seed.
    The batch size changes the scores by less than 1e-6.

    Args:
        model: A `SAGAN`, or an object with the same `generate()`, `latent_dim` and `num_classes`;
            or a Keras model that maps latents or [latents, labels] to images in [-1, 1].
        reference: The real images, as a uint8 array, a pair of arrays (images, labels), or a finite
            iterable of such batches. Alternatively, a `ReferenceStatistics`, or the path of a
            `.npz` file of statistics from this package, pytorch-fid, clean-fid or torch-fidelity.
        metrics: Names from `METRICS`, or metric objects from this package that share one extractor.
        feature_extractor: The network that computes the features. Required if `metrics` contains
            names.
        num_images: The number of images to generate.
        labels: `"uniform"` generates the same number of images of each class; `"reference"` uses
            the reference's class frequencies. An integer array of shape (num_images,) contains the
            class of each image.
        seed: The seed for the latents, the labels and the noise baseline.
        batch_size: The batch size for generating images and extracting features.
        use_ema: Whether to use the averaged generator if the model has one.
        truncation: Positive float, the maximum magnitude of latent values. Larger values are
            resampled.
        standing_passes: The number of forward passes (64 images each) for estimating the batch
            statistics. With `0`, the moving statistics from training are used.
        **kwargs: `dataset`, `split`, `held_out`, `value_range`, `num_reference`, `cache_dir` and
            `verbose`, as in `evaluate_images`.

    Raises:
        ValueError: If an argument, an image or a feature is invalid; if `reference` comes from a
            different extractor or lacks data that a metric needs; or if `held_out` contains fewer
            than 2 images or the same images as `reference`.

    Example:
    ```python
    real, extractor = (test_images, test_labels), GreyClassifierFeatures()
    report = evaluate_generator(model, real, ("fid", "kid"), extractor, 10_000, dataset="photos")
    print(report)
    report.save("report.json")
    ```
    """
    # Check these arguments before reading the reference, which may take a long time.
    num_images = check_integer("num_images", num_images, 2)
    use_ema = check_boolean("use_ema", use_ema)
    truncation = check_float("truncation", truncation, above=0, optional=True)
    standing_passes = check_integer("standing_passes", standing_passes, 0)
    evaluation = Evaluation(reference, metrics, feature_extractor, batch_size, seed, **kwargs)
    counts = evaluation.reference.class_counts
    images = GeneratedImages(
        model, num_images, labels, counts, seed, batch_size, use_ema, truncation
    )
    protocol, name, standing = images.protocol, images.name, contextlib.nullcontext()
    if standing_passes:
        protocol["batch_statistics"] = f"standing, {standing_passes} passes of {STANDING_BATCH}"
        total = standing_passes * STANDING_BATCH
        progress = Progress("Standing statistics", total, evaluation.extraction.verbose)
        batches = images.standing_batches(standing_passes, seed, progress)
        standing = standing_statistics(images.network, batches)
    with standing:
        return evaluation.report(images.batches(), num_images, protocol, name)


def evaluate_images(
    images: Iterable,
    reference: Any,
    metrics: str | Sequence = DEFAULT_METRICS,
    feature_extractor: Callable | None = None,
    num_images: int | None = None,
    name: str = "images",
    seed: int = 0,
    batch_size: int = 64,
    **kwargs,
) -> EvaluationReport:
    """Evaluates existing images, such as a folder of samples; see `evaluate_generator`.

    Args:
        images: uint8 images or floats in `value_range`, as an array, a pair of arrays
            (images, labels), or an iterable of such batches.
        reference, metrics, feature_extractor: As in `evaluate_generator`.
        num_images: The number of images to use; required for an iterable. Defaults to all.
        name: The name of the images in the report.
        seed, batch_size: The seed for the noise baseline, and the batch size of the extractor.
        **kwargs:
            dataset, split: The names of the reference and of its split in the report.
            held_out: Additional real images, used for the `"real"` baseline. By default, one half
                of the reference is compared with the other half. `held_out` also adds two scores to
                `Memorization`, whose reference must contain the training images.
            value_range: Pair `(low, high)`, the range of float images.
            num_reference: The number of reference images to use, starting from the first. Required
                for an endless iterable, such as a dataset of `load_tfds`. Defaults to all.
            cache_dir: A folder that caches the reference's statistics, and its features if a metric
                needs them. A cached file is identified by `dataset`, `split`, the number and size
                of the images, and the extractor; for arrays, also by their content; and for
                `FolderImages`, also by the files' modification times. The content of other
                iterables isn't checked; if their length is unknown, `num_reference` is required.
            verbose: Whether to show a progress bar for anything that takes more than ten seconds.

    Raises:
        ValueError: As in `evaluate_generator`, and if there are fewer than `num_images` images.
    """
    if num_images is None:
        num_images = length_of(images)
        if num_images is None:
            raise ValueError(
                "`num_images` must be given for an iterable of batches. Received: num_images=None"
            )
        if num_images < 2:
            raise ValueError(f"`images` must hold at least 2 images. Received: {num_images}")
    num_images = check_integer("num_images", num_images, 2)
    name = check_string("name", name)
    evaluation = Evaluation(reference, metrics, feature_extractor, batch_size, seed, **kwargs)
    batches = batches_of(images, batch_size, num_images, "num_images")
    unknown = dict.fromkeys(("weights", "batch_statistics", "truncation"), "not stated")
    protocol = {**unknown, "labels": "as given", "seed": evaluation.seed}
    return evaluation.report(batches, num_images, protocol, name)


class Evaluation:
    """The metrics, extractor and reference of an evaluation; see `evaluate_images`."""

    def __init__(
        self,
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
        verbose=True,
    ):
        self.seed = check_integer("seed", seed, 0)
        dataset = check_string("dataset", dataset, optional=True) or "unnamed"
        split = check_string("split", split, optional=True)
        cache_dir = check_path("cache_dir", cache_dir, optional=True)
        num_reference = check_integer("num_reference", num_reference, 2, optional=True)
        self.metrics = _make_metrics(metrics, feature_extractor, value_range, batch_size)
        # If `value_range` is `None`, use the `value_range` of the first metric that has one.
        ranges = [value_range, *(x.value_range for x in self.metrics)]
        value_range = next((x for x in ranges if x is not None), None)
        extractor = self.metrics[0].feature_extractor
        self.extraction = FeatureExtraction(extractor, value_range, batch_size)
        self.extraction.verbose = check_boolean("verbose", verbose)
        for metric in self.metrics:
            metric.verbose = self.extraction.verbose
        self.names = tuple(sorted({x.output for x in self.metrics}))  # Put "features" first.
        if is_endless(held_out):
            raise ValueError(f"`held_out` must not be endless. Received: held_out={held_out!r}")
        self.held_out = None if held_out is None else batches_of(held_out, batch_size)
        self._num_held_out = length_of(held_out)
        if isinstance(reference, (str, os.PathLike, ReferenceStatistics)):
            if num_reference is not None:
                raise ValueError(
                    "`num_reference` is for images, and can't be given with statistics. "
                    f"Received: num_reference={num_reference}, reference={reference}"
                )
            if not isinstance(reference, ReferenceStatistics):
                reference = ReferenceStatistics.load(reference, extractor)
            reference.check_extractor(extractor, "a reference")
        else:
            reference = self._read(reference, dataset, split, num_reference, cache_dir)
        self.reference = reference
        for metric in self.metrics:
            metric.check_holds(reference, "real")

    def _read(self, images, dataset, split, num_reference, cache_dir):
        """Returns the statistics of the real images, with the features that the metrics need."""
        keep = {"features"} & {name for x in self.metrics for name in x.needs["real"]}
        keep |= {"logits"} & set(self.names)  # For the Inception Score of real images.
        options = {"names": self.names, "keep": sorted(keep)}
        if cache_dir is None:
            options["num_reference"] = num_reference
            return ReferenceStatistics.compute(images, self.extraction, dataset, split, **options)
        check_is_versioned(self.extraction.feature_extractor, "cache_dir")
        count = num_reference or length_of(images)
        if dataset == "unnamed" or count is None:
            raise ValueError(
                "`cache_dir` needs the `dataset`'s name, and `num_reference` for a reference of "
                f"unknown length. Received: dataset={dataset!r}, a reference of length {count}"
            )
        return ReferenceStatistics.cached(
            images, self.extraction, dataset, split, count, cache_dir, **options
        )

    def measure(
        self, batches: Iterable, title: str, total: int | None = None, argument: str = "images"
    ) -> tuple:
        """Returns a `FeatureSet` for batches of images, and a description of the images."""
        batches = self._with_same_channels(batches, argument)
        # `width` is the width of "features"; the Inception Score alone needs only "logits".
        width = self.reference.width if "features" in self.names else None
        keep = {name for x in self.metrics for name in x.needs["generated"]}
        features = FeatureSet(keep, width)
        return features, self.extraction.measure(batches, features, self.names, title, total)

    def _with_same_channels(self, batches, argument):
        for images, labels in batches:
            check_same_channels(images.shape, self.reference.info.get("image_shape"), argument)
            yield images, labels

    def _measure_held_out(self):
        """Returns the `FeatureSet` of the held-out images, and their description."""
        found, about = self.measure(
            self.held_out, "Held-out images", self._num_held_out, argument="held_out"
        )
        if found.num_images < 2:
            raise ValueError(
                f"`held_out` must contain at least 2 images. Received: {found.num_images}"
            )
        if about["sha256"] == self.reference.info["sha256"]:
            raise ValueError(
                "`held_out` must contain other images than `reference`. Received: the same images"
            )
        return found, about

    def report(self, batches: Iterable, num_images: int, made: dict, name: str) -> EvaluationReport:
        """Evaluates batches of pairs (images, labels), where `labels` may be `None`.

        The entries of `made` are added to the protocol.
        """
        protocol = make_protocol(self.metrics, num_images, self.reference.info, made)
        held_out, shapes = None, {}
        if self.held_out is not None:
            held_out, about = self._measure_held_out()
            protocol["held_out_sha256"] = about["sha256"]
            shapes["held-out"] = about["image_shape"]
        features, info = self.measure(batches, "Generated images", num_images)
        shapes["generated"] = info["image_shape"]
        values, notes, metrics = {}, [], list(self.metrics)
        if min(num_images, self.reference.num_images or num_images) < ENOUGH_IMAGES:
            # Report the KID first, because it is unbiased.
            metrics.sort(key=lambda x: not isinstance(x, KernelInceptionDistance))
            has_kid = isinstance(metrics[0], KernelInceptionDistance)
            notes += [_BIAS + _TRUST_KID * has_kid] * self._has_fid
        if info["sha256"] == self.reference.info["sha256"]:
            notes.append("The generated images are the reference images themselves")
        real_shape = self.reference.info.get("image_shape")
        for title, shape in shapes.items():
            if real_shape and list(shape[:2]) != list(real_shape[:2]):
                sizes = (f"{height} × {width}" for height, width, _ in (shape, real_shape))
                notes.append(_SIZES.format(title, *sizes))
        for metric in metrics:
            metric.held_out = held_out
            values |= metric.values(self.reference, features)
            notes += metric.notes(self.reference, features)
        size, labels = self.extraction.batch_size, self.reference.arrays.get("labels")
        parts = [None] * num_images
        if labels is not None:  # Labels may be sorted by class, so take evenly spaced ones.
            labels = labels[np.arange(num_images) * len(labels) // num_images]
            parts = np.split(labels, range(size, num_images, size))
        noise = zip(noise_images(num_images, info["image_shape"], self.seed, size), parts)
        noise, _ = self.measure(noise, "Noise", num_images)
        baselines = {"real": self._real(held_out), "noise": self._baseline(self.reference, noise)}
        return EvaluationReport(values, baselines, protocol, name, notes)

    @property
    def _has_fid(self):
        return any(isinstance(x, FrechetInceptionDistance) for x in self.metrics)

    def _baseline(self, real, generated, *notes):
        """Returns the scores of two sets, and a note on the scores that can't be computed."""
        values, notes = {}, list(notes)
        for metric in self.metrics:
            try:
                values |= metric.values(real, generated)
            except ValueError as error:
                notes.append(f"no {metric.name}: {error}")
        note = {"note": "; ".join(notes)} if notes else {}
        return {**values, **note, "num_images": generated.num_images}

    def _real(self, held_out):
        """Returns the scores of real images that are evaluated as if they were generated."""
        if held_out is not None:
            return self._baseline(self.reference, held_out)
        halves = self.reference.split()
        if not halves:
            return {"note": "the file has only `mu` and `sigma`: give `held_out` images"}
        even, odd = halves
        notes = [f"one half of the reference, {odd.num_images} images, against the other"]
        if self._has_fid:
            notes[0] += (
                "; a Fréchet distance is larger for fewer images, so the generated images may have "
                "a lower one. If you give `held_out` images, this baseline uses all of them"
            )
        return self._baseline(even, odd, *notes)


def check_same_channels(
    image_shape: Sequence,
    reference_shape: Sequence | None,
    argument: str = "images",
    reference: str = "reference",
) -> None:
    """Raises an error if gray and color images are compared, unless `reference_shape` is `None`."""
    if reference_shape and image_shape[-1] != reference_shape[-1]:
        raise ValueError(
            f"`{argument}` and `{reference}` must both be gray or both be color. Received: images "
            f"with {image_shape[-1]} and a reference with {reference_shape[-1]} channels"
        )


def _make_metrics(metrics, feature_extractor, value_range, batch_size):
    """Returns metric objects that share one extractor."""
    is_one = isinstance(metrics, (str, FeatureMetric))
    result = []
    for metric in [metrics] if is_one else check_list("metrics", metrics):
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
    extractors = {id(x.feature_extractor): x for x in result}
    if len(extractors) != 1 or id(feature_extractor) not in {id(None), *extractors}:
        raise ValueError(
            "`metrics` must share one extractor, and not be empty. "
            f"Received: {len(result)} metrics with {len(extractors)} extractors"
        )
    names = [x.name for x in result]
    if len(set(names)) < len(names):
        raise ValueError(
            f"`metrics` must have different names; set their argument `name`. Received: {names}"
        )
    return result
