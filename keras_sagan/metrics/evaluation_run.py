"""One pass of features for all scores, with the protocol and the baselines beside them."""

import hashlib
import json
import os
import warnings

import numpy as np

from keras_sagan.checks import (
    check_boolean,
    check_integer,
    check_list,
    check_path,
    check_string,
)
from keras_sagan.metrics.density_coverage import DensityCoverage
from keras_sagan.metrics.evaluation_report import EvaluationReport
from keras_sagan.metrics.feature_extraction import FeatureExtraction
from keras_sagan.metrics.feature_log import FeatureLog, logged_features
from keras_sagan.metrics.feature_metric import FeatureMetric
from keras_sagan.metrics.frechet_inception_distance import FrechetInceptionDistance
from keras_sagan.metrics.frechet_inception_distance_infinity import (
    FrechetInceptionDistanceInfinity,
)
from keras_sagan.metrics.image_sources import check_ends, first_images, length_of, noise_images
from keras_sagan.metrics.inception_score import InceptionScore
from keras_sagan.metrics.intra_class_frechet_inception_distance import (
    IntraClassFrechetInceptionDistance,
)
from keras_sagan.metrics.kernel_inception_distance import KernelInceptionDistance
from keras_sagan.metrics.precision_recall import PrecisionRecall
from keras_sagan.metrics.progress import Progress
from keras_sagan.metrics.protocol import check_is_versioned, extractor_info, package_versions
from keras_sagan.metrics.reference_statistics import ReferenceStatistics

METRICS = {
    "fid": FrechetInceptionDistance,
    "kid": KernelInceptionDistance,
    "inception_score": InceptionScore,
    "precision_recall": PrecisionRecall,
    "density_coverage": DensityCoverage,
    "intra_fid": IntraClassFrechetInceptionDistance,
    "fid_infinity": FrechetInceptionDistanceInfinity,
}


class EvaluationRun:
    """What an evaluation does that doesn't depend on where its images come from.

    The arguments are those of `evaluate_images`.
    """

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
        checkpoint=None,
        cache_dir=None,
        strategy=None,
        verbose=True,
    ):
        self.seed = check_integer("seed", seed, 0)
        self.verbose = check_boolean("verbose", verbose)
        dataset = check_string("dataset", dataset, optional=True)
        split = check_string("split", split, optional=True)
        self.checkpoint = check_path("checkpoint", checkpoint, optional=True)
        cache_dir = check_path("cache_dir", cache_dir, optional=True)
        self.metrics = _make_metrics(metrics, feature_extractor, value_range, batch_size)
        ranges = {x.value_range for x in self.metrics} - {None}
        if value_range is None and len(ranges) == 1:
            (value_range,) = ranges
        self.extraction = FeatureExtraction(
            self.metrics[0].feature_extractor, value_range, batch_size, strategy
        )
        self.extraction.verbose = self.verbose
        self._logs, self._has_warned = [], False
        for argument, folder in (("checkpoint", checkpoint), ("cache_dir", cache_dir)):
            if folder is not None:
                check_is_versioned(self.extraction.feature_extractor, argument)
        self.names = tuple(dict.fromkeys(["features", *(x.output for x in self.metrics)]))
        if not any(x.output == "features" for x in self.metrics):
            self.names = ("logits",)
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
        self.reference = self._reference(reference, dataset, split, cache_dir)
        self.held_out = held_out
        for metric in self.metrics:
            metric.verbose = self.verbose
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
        options = {"names": self.names, "keep": sorted(keep)}
        options["progress"] = Progress("Reference images", length_of(reference), self.verbose)
        self.extraction.subject = "reference images"
        dataset = dataset or "unnamed"
        options["log"] = self._log(["reference", dataset, split])
        if cache_dir is None:
            return ReferenceStatistics.compute(
                reference, self.extraction, dataset, split, **options
            )
        count = length_of(reference)
        if dataset == "unnamed" or count is None:
            raise ValueError(
                "`cache_dir` needs the `dataset`'s name, and `num_reference` for a reference that "
                f"doesn't say its length. Received: dataset={dataset!r}, a reference of length "
                f"{count}"
            )
        return ReferenceStatistics.cached(
            reference, self.extraction, dataset, split, count, cache_dir, **options
        )

    def run(self, parts, num_images, protocol, name):
        """Measures `num_images` images and the baselines; returns the report.

        Args:
            parts: Iterable of (image shape, labels, features), as `of_images` gives it.
            num_images: Integer.
            protocol: Dictionary, of how the images were made.
            name: String, what is measured.
        """
        info = self.reference.info
        protocol = {
            "num_generated": num_images,
            "reference": info["dataset"],
            "reference_split": info["split"],
            "num_reference": info["num_images"],
            "reference_sha256": info["sha256"],
            "reference_extractor_is_known": info["feature_extractor"] is not None,
            **extractor_info(self.extraction.feature_extractor),
            "metrics": {x.name: x.definition for x in self.metrics},
            **protocol,
            "versions": package_versions(),
        }
        shape = self._measure(parts, num_images, "Generated images")
        values = self._values()
        notes = [note for metric in self.metrics for note in metric.notes()]
        kept = [metric.snapshot() for metric in self.metrics]
        noise = self._noise(num_images, shape)
        baselines = {"real": self._floor(), "noise": noise}
        for metric, state in zip(self.metrics, kept):
            metric.restore(state)
        for log in self._logs:
            log.remove()
        return EvaluationReport(values, baselines, protocol, name, notes)

    def of_images(self, images, name):
        """Yields (image shape, labels, features) of images that are there to be read again."""
        log = self._log(["images", name])
        for batch, labels, features in logged_features(images, self.extraction, self.names, log):
            yield batch.shape[1:], labels, features

    def of_batches(self, batches, key):
        """Yields the same of images that a key determines: what is in the log isn't made again.

        Args:
            batches: Function from the number of the first image to an iterable of pairs (images,
                labels or `None`).
            key: Anything ready for JSON, of what the images depend on.
        """
        log, done = self._log(key), 0
        for features in log.read() if log else ():
            labels = features.pop("labels", None)
            done += len(features["shape"])
            yield features.pop("shape")[0], None if labels is None else labels[:, 0], features
        for images, labels in batches(done):
            features = self.extraction(images, self.names, done)
            shape = images.shape[1:]
            if log is not None:
                rows = {**features, "shape": np.tile(np.int64(shape), (len(images), 1))}
                if labels is not None:
                    rows["labels"] = np.asarray(labels, dtype=np.int64)[:, None]
                log.append(rows)
            done += len(images)
            yield shape, labels, features

    def _log(self, key):
        """The log of a pass, by what its features depend on; `None` without a `checkpoint`."""
        if self.checkpoint is None:
            return None
        info = extractor_info(self.extraction.feature_extractor)
        key = [key, info, self.extraction.value_range, self.names, package_versions()]
        log = FeatureLog(self.checkpoint, key)
        self._logs.append(log)
        others = set(log.others()) - {x.path for x in self._logs} if log.is_empty else None
        if others and not self._has_warned:
            self._has_warned = True
            warnings.warn(
                f"`checkpoint` holds features of another evaluation, which aren't used: "
                f"{min(others)} is of other weights, settings or versions. Evaluate those again to "
                "use it, or remove it.",
                stacklevel=4,
            )
        return log

    def _measure(self, parts, num_images, title):
        """Feeds the generated side of the metrics; returns the shape of an image."""
        for metric in self.metrics:
            metric.reset_state()
        progress = Progress(title, num_images, self.verbose)
        self.extraction.subject = title[0].lower() + title[1:]
        done, shape = 0, None
        for part in parts:
            shape, labels, features = part
            width, expected = features[self.names[0]].shape[1], len(self.reference.moments.mean)
            if width != expected:
                raise ValueError(
                    "`reference` must be of the extractor that the images are compared in, which "
                    f"gives features of width {width}. Received: {self.reference.info['dataset']} "
                    f"of width {expected}"
                )
            for metric in self.metrics:
                metric.update_features(features[metric.output], real=False, labels=labels)
            done += len(features[self.names[0]])
            progress(done)
        if done != num_images:
            raise ValueError(
                f"`images` must hold num_images={num_images} images. Received: {done} images"
            )
        return tuple(map(int, shape))

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
        """The scores of noise in place of generated images, kept with the reference."""
        labels = self.reference.arrays.get("labels")
        # With the digests of the images and labels: a file beside a cached reference may be older.
        key = [num_images, *shape, self.seed, self.reference.info["sha256"]]
        if labels is not None:
            key.append(hashlib.sha256(labels.astype(np.int64).tobytes()).hexdigest())
            # Of all classes, also where they stand in order.
            labels = labels[np.arange(num_images) * len(labels) // num_images]
        info = extractor_info(self.extraction.feature_extractor)
        key = json.dumps([*key, *(x.definition for x in self.metrics), info])
        if key not in self.reference.noise:

            def batches(start):
                size = self.extraction.batch_size
                for images in noise_images(num_images, shape, self.seed, size, start):
                    here = slice(start, start + len(images))
                    yield images, None if labels is None else labels[here]
                    start += len(images)

            self._measure(self.of_batches(batches, ["noise", key]), num_images, "Noise")
            note = []
            values = self._values(note)
            self.reference.remember_noise(key, {**values, **_notes(note)})
        return {**self.reference.noise[key], "num_images": num_images}

    def _floor(self):
        """The scores of other real images in place of generated ones."""
        note = []
        if self.held_out is not None:
            count = length_of(self.held_out)
            parts = self.of_images(self.held_out, "held out")
            self._measure(parts, count, "Held-out images")
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
