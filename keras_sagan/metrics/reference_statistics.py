"""Computes, saves and loads statistics of real images, and reads other projects' files."""

import hashlib
import itertools
import json
import os
import pathlib
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np

from keras_sagan.checks import check_integer, check_path
from keras_sagan.metrics.extraction import FeatureExtraction, buffer_of
from keras_sagan.metrics.features import FeatureSet, Moments, covariance
from keras_sagan.metrics.images import batches_of, is_pair, length_of, once
from keras_sagan.metrics.report import check_is_versioned, extractor_info
from keras_sagan.metrics.statistics_file import read_statistics
from keras_sagan.whole_files import replace_file

# Arrays that contain moments for each half of the real images.
_HALVES = ("half_counts", "half_means", "half_scatters")


class ReferenceStatistics:
    """The statistics of one extractor's features for a set of real images.

    Call `ReferenceStatistics.compute` or `ReferenceStatistics.load` to create an instance. Images
    are streamed; the moments take O(dim²) memory, and features are kept only if a metric needs
    them.

    Statistics are saved as a `.npz` file with `mu` and `sigma`, which pytorch-fid, clean-fid and
    torch-fidelity's `fid_statistics_to_metric` can use. This package also reads the files of these
    projects. Files saved by this package describe their images and their extractor, and can't be
    used with a different extractor.

    Args:
        moments: `Moments` of the features.
        info: Description of the images: `dataset`, `split`, `num_images` (`None` if a file lacks
            it), `sha256` of the images (or of the file), `feature_extractor`, `resize`,
            `image_shape`.
        halves: Pair of `Moments`, one for the even-indexed and one for the odd-indexed images.
        arrays: Dictionary of arrays with one row for each image: `features`, `logits` and `labels`,
            or some of these.

    Example:
    >>> extraction = FeatureExtraction(lambda x: x.mean((1, 2)))
    >>> images, labels = np.zeros((6, 8, 8, 1), "uint8"), np.arange(6) % 2
    >>> reference = ReferenceStatistics.compute((images, labels), extraction, dataset="zeros")
    >>> reference.num_images, reference.class_counts.tolist()
    (6, [3, 3])
    """

    def __init__(
        self,
        moments: Moments,
        info: dict,
        halves: Sequence[Moments] | None = None,
        arrays: dict[str, np.ndarray] | None = None,
    ):
        self.moments, self.info, self.halves = moments, dict(info), halves
        self.arrays, self.width = dict(arrays or {}), len(moments.mean)

    @classmethod
    def compute(
        cls,
        images: Iterable,
        extraction: FeatureExtraction,
        dataset: str,
        split: str | None = None,
        names: Sequence[str] = ("features",),
        keep: Sequence[str] = (),
        num_reference: int | None = None,
    ) -> "ReferenceStatistics":
        """Computes the statistics in one pass over the images.

        Args:
            images: uint8 images in [0, 255], or floats in `extraction.value_range`, as an array, a
                pair of arrays (images, labels), or an iterable of such batches.
            extraction: A `FeatureExtraction`: the extractor, the range of its images and the batch
                size.
            dataset, split: The names of the dataset and, optionally, of its split.
            names: The names of the extractor's outputs to use.
            keep: The names of the outputs to keep for every image, a subset of `names`.
            num_reference: The number of images to use, starting from the first. Defaults to all
                images; required for an endless iterable.

        Raises:
            ValueError: If there are fewer than 2 or fewer than `num_reference` images, if an
                endless iterable has no `num_reference`, if shapes differ, or if the extraction
                raises an error.
        """
        limit = check_integer("num_reference", num_reference, 2, optional=True)
        batches = batches_of(images, extraction.batch_size, limit)
        first = list(itertools.islice(batches, 1))
        has_labels = bool(first) and first[0][1] is not None
        features = FeatureSet(["moments", *keep, *["labels"] * has_labels], num_parts=2)
        info = extraction.measure(
            itertools.chain(first, batches),
            features,
            names,
            "Reference images",
            limit or length_of(images),
        )
        if features.num_images < 2:
            raise ValueError(
                "`reference` must hold at least 2 images. "
                f"Received: {features.num_images} from the dataset {dataset}{once(images)}"
            )
        info |= {"dataset": dataset, "split": split, **extractor_info(extraction.feature_extractor)}
        return cls(features.moments, info, tuple(features.parts), features.arrays)

    @property
    def num_images(self) -> int | None:
        """The number of images, or `None` if the file doesn't record it."""
        return self.info["num_images"]

    @property
    def class_counts(self) -> np.ndarray | None:
        """The number of images in each class, as an integer array, or `None` without labels."""
        labels = self.arrays.get("labels", ())  # A file may hold an empty array of labels.
        return np.bincount(labels) if len(labels) else None

    def split(self) -> list["ReferenceStatistics"]:
        """Returns the statistics of even- and odd-indexed images, or `[]` without `halves`."""
        return [
            ReferenceStatistics(
                moments,
                {**self.info, "num_images": int(moments.count)},
                arrays={name: value[half::2] for name, value in self.arrays.items()},
            )
            for half, moments in enumerate(self.halves or ())
        ]

    def check_extractor(self, feature_extractor: Callable, source: str) -> None:
        """Raises an error that names `source` if the statistics are from a different extractor."""
        for name, value in extractor_info(feature_extractor).items():
            if self.info[name] not in (None, value):
                raise ValueError(
                    "`reference` must be measured with the same extractor as the images: "
                    f"{name} {value}. Received: {source} with {name} {self.info[name]}"
                )

    def save(self, path: str | pathlib.Path) -> None:
        """Writes the statistics to a `.npz` file; if this fails, no partial file is left."""
        path = _npz_path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        arrays: dict = {
            "mu": self.moments.mean,
            "sigma": covariance(self.moments),
            "info": np.array(json.dumps(self.info)),
            **self.arrays,
        }
        if self.halves is not None:
            arrays |= zip(_HALVES, zip(*self.halves))
        replace_file(path, lambda file: np.savez(file, **arrays))

    @classmethod
    def load(
        cls, path: str | os.PathLike, feature_extractor: Callable | None = None
    ) -> "ReferenceStatistics":
        """Reads a file saved by this package, or `mu` and `sigma` from another project's file.

        Args:
            path: The path of a `.npz` file.
            feature_extractor: The extractor of the generated images. It must be the same as the
                extractor that the file records, if any. `None` skips this check.

        Raises:
            FileNotFoundError: If the file doesn't exist.
            ValueError: If the file contains no statistics or is damaged, or if its extractor
                differs or can't be identified.
        """
        path = _npz_path(path)
        if not path.is_file():
            raise FileNotFoundError(
                f"`reference` must be a file of statistics that exists. Received: {path}"
            )
        arrays, info = read_statistics(path)
        if info is None:
            unknown = ("split", "num_images", "image_shape", "feature_extractor", "resize")
            digest = hashlib.sha256(path.read_bytes()).hexdigest()
            info = {"dataset": path.name, "sha256": digest, **dict.fromkeys(unknown)}
        # If the number of images is unknown, use 2: any number above 1 gives the same covariance.
        count = info["num_images"] or 2
        mean, cov = (arrays.pop(name).astype(np.float64) for name in ("mu", "sigma"))
        halves = None
        if _HALVES[0] in arrays:
            halves = tuple(map(Moments, *(arrays.pop(name) for name in _HALVES)))
        found = cls(Moments(count, mean, cov * (count - 1)), info, halves, arrays)
        if feature_extractor is not None and info["feature_extractor"] is not None:
            found.check_extractor(feature_extractor, str(path))
            check_is_versioned(feature_extractor, "reference")
        return found

    @classmethod
    def cached(
        cls,
        images: Any,
        extraction: FeatureExtraction,
        dataset: str,
        split: str | None,
        num_images: int,
        cache_dir: str | pathlib.Path,
        names: Sequence[str] = ("features",),
        keep: Sequence[str] = (),
    ) -> "ReferenceStatistics":
        """Reads the statistics from a folder, or computes them and saves them there.

        The arguments are as in `compute`, but `num_images` replaces `num_reference`, and
        `cache_dir` is the folder. A file is identified by the names of the dataset and split, the
        number and size of the images, the extractor and the outputs to keep; for arrays, also by
        their content; and for `FolderImages`, also by the names, sizes and modification times of
        the image files. The first batch of an iterable is always read.

        Raises:
            ValueError: As in `compute` and `load`, and if there are fewer than `num_images` images.
        """
        batches = batches_of(images, extraction.batch_size, num_images, "num_images")
        first = list(itertools.islice(batches, 1))
        arrays = [images[0], np.asarray(images[1])] if is_pair(images) else [images]
        key = json.dumps(
            [
                *(dataset, split, num_images, names, sorted(keep), extraction.value_range),
                extractor_info(extraction.feature_extractor),
                [(list(map(int, x.shape[1:])), labels is not None) for x, labels in first],
                [hashlib.sha256(buffer_of(x)).hexdigest() for x in arrays if hasattr(x, "shape")],
                getattr(images, "files_sha256", None),
            ]
        )
        name = "".join(x if x.isalnum() else "_" for x in f"{dataset}_{split}_{num_images}")
        digest = hashlib.sha256(key.encode()).hexdigest()[:16]
        path = pathlib.Path(check_path("cache_dir", cache_dir)) / f"{name}_{digest}.npz"
        if path.is_file():
            return cls.load(path, extraction.feature_extractor)
        batches = itertools.chain(first, batches)
        computed = cls.compute(batches, extraction, dataset, split, names, keep, num_images)
        computed.save(path)
        return computed


def _npz_path(path):
    path = pathlib.Path(check_path("path", path))
    if path.suffix != ".npz":
        raise ValueError(f"`path` must end in .npz. Received: path={path}")
    return path
