"""What is kept of real images: computed once, cached in a file, read from other projects' files."""

import hashlib
import json
import pathlib

import numpy as np

from keras_sagan.checks import check_integer, check_path
from keras_sagan.metrics.features import to_numpy
from keras_sagan.metrics.frechet_inception_distance import (
    Moments,
    compute_moments,
    covariance,
    merge_moments,
)
from keras_sagan.metrics.images import (
    batches_of,
    check_ends,
    first_images,
    is_endless,
    length_of,
    once,
    peek,
)
from keras_sagan.metrics.progress import Progress
from keras_sagan.metrics.report import check_is_versioned, extractor_info
from keras_sagan.metrics.statistics_file import ARRAYS, HALVES, read_statistics
from keras_sagan.whole_files import replace_file


class ReferenceStatistics:
    """The statistics of a set of real images in the features of one extractor.

    Made by `ReferenceStatistics.compute` or `ReferenceStatistics.load`. Images are streamed; the
    moments take O(dim²) memory, and features are kept only where a metric needs them.

    A file is a `.npz` with `mu` and `sigma`, so that pytorch-fid, clean-fid and torch-fidelity's
    functions read it, and this package reads theirs. Files of this package also describe their
    images and extractor, and one of another extractor is refused.

    Args:
        moments: `Moments` of the features.
        info: Dictionary of what the statistics are of: `dataset`, `split`, `num_images` (`None`
            where a file doesn't say), `sha256` of the images (or of such a file),
            `feature_extractor`, `resize`, `image_shape`.
        halves: Pair of `Moments`, of the images with even and with odd numbers; or `None`.
        arrays: Dictionary with any of `features`, `logits` and `labels`, one row for each image.

    Example:

    >>> import numpy as np
    >>> from keras_sagan.metrics import FeatureExtraction
    >>> extraction = FeatureExtraction(lambda x: x.mean((1, 2)))
    >>> images, labels = np.zeros((6, 8, 8, 1), "uint8"), np.arange(6) % 2
    >>> reference = ReferenceStatistics.compute((images, labels), extraction, dataset="zeros")
    >>> reference.num_images, reference.class_counts.tolist()
    (6, [3, 3])
    """

    def __init__(self, moments, info, halves=None, arrays=None):
        self.moments = moments
        self.info = dict(info)
        self.halves = halves
        self.arrays = dict(arrays or {})

    @classmethod
    def compute(
        cls,
        images,
        extraction,
        dataset,
        split=None,
        names=("features",),
        keep=(),
        progress=None,
        num_reference=None,
    ):
        """Streams real images once.

        Args:
            images: uint8 images in [0, 255] or floats in the extraction's range: an array, a pair
                of arrays (images, labels), or an iterable of batches of either.
            extraction: A `FeatureExtraction`.
            dataset: String, the name of the data set.
            split: Optional string, the name of its split.
            names: Strings, the outputs of the extractor to take.
            keep: Strings, those of `names` to keep for every image. Defaults to none.
            progress: Function, called with the number of images done. Defaults to a bar, if it
                takes more than ten seconds.
            num_reference: Integer, how many of the images to take, from the first on. Defaults to
                `None`: all of them, and endless images are refused.

        Returns:
            `ReferenceStatistics`.

        Raises:
            ValueError: For no image, images without end, fewer than `num_reference`, images of
                mixed shape, or what the extraction refuses.
        """
        if num_reference is not None:
            num_reference = check_integer("num_reference", num_reference, 2)
            images = first_images(images, num_reference, extraction.batch_size, "num_reference")
        check_ends(images, "images")
        progress = progress or Progress("Reference images", length_of(images))
        digest = hashlib.sha256()
        halves, parts, count, shape = [None, None], {name: [] for name in ARRAYS}, 0, None
        for batch, labels in batches_of(images, extraction.batch_size):
            found = extraction(batch, names, count)
            if shape not in (None, batch.shape[1:]):
                raise ValueError(
                    f"`images` must have one shape; those before had {shape}. Received: images of "
                    f"shape {batch.shape[1:]} from number {count} on"
                )
            shape = batch.shape[1:]
            digest.update(np.ascontiguousarray(batch).tobytes())
            features = found[names[0]]
            for half in (0, 1):
                part = features[(half + count) % 2 :: 2]
                if len(part):
                    halves[half] = merge_moments(halves[half], compute_moments(part))
            for name in keep:
                parts[name].append(found[name])
            if labels is not None:
                parts["labels"].append(labels)
            count += len(batch)
            progress(count)
        if count < 2:
            raise ValueError(
                "`reference` must hold at least 2 images. "
                f"Received: {count} from the data set {dataset}{once(images)}"
            )
        info = {
            "dataset": dataset,
            "split": split,
            "num_images": count,
            "sha256": digest.hexdigest(),
            "image_shape": list(shape),
            **extractor_info(extraction.feature_extractor),
        }
        arrays = {name: np.concatenate(part) for name, part in parts.items() if part}
        if len(arrays.get("labels", ())) not in (0, count):
            raise ValueError(
                "`images` must come with labels in every batch or in none. Received: labels for "
                f"{len(arrays['labels'])} of {count} images"
            )
        return cls(merge_moments(*halves), info, tuple(halves), arrays)

    @property
    def num_images(self):
        """Integer, or `None` where a file of another project doesn't say."""
        return self.info["num_images"]

    @property
    def class_counts(self):
        """Integer array of shape (num_classes,), or `None` without labels."""
        return np.bincount(self.arrays["labels"]) if "labels" in self.arrays else None

    def split(self):
        """Returns the statistics of the images with even and with odd numbers."""
        return [
            ReferenceStatistics(
                moments,
                {**self.info, "num_images": moments.count},
                arrays={name: value[half::2] for name, value in self.arrays.items()},
            )
            for half, moments in enumerate(self.halves)
        ]

    def save(self, path):
        """Writes a `.npz` with `mu`, `sigma` and everything else that is known.

        Args:
            path: String or `pathlib.Path`, ending in `.npz`. It is replaced whole or not at all.
        """
        path = _npz_path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        arrays = {
            "mu": self.moments.mean,
            "sigma": covariance(self.moments),
            "info": np.array(json.dumps(self.info)),
            **self.arrays,
        }
        for names, moments in zip(HALVES, self.halves or ()):
            arrays.update(zip(names, moments))
        replace_file(path, lambda file: np.savez(file, **arrays))

    @classmethod
    def load(cls, path, feature_extractor=None):
        """Reads a file of this package, or `mu` and `sigma` of another project's.

        Args:
            path: String or `pathlib.Path` of a `.npz` file.
            feature_extractor: The extractor of the images to compare with, to check that the file
                is of the same one, as far as it says. Defaults to `None`: not checked.

        Returns:
            `ReferenceStatistics`.

        Raises:
            FileNotFoundError: If there is no such file.
            ValueError: If it is no such file, is damaged, or is of another extractor, or of one
                that can't be told from others.
        """
        path = _npz_path(path)
        if not path.is_file():
            raise FileNotFoundError(
                f"`reference` must be a file of statistics that exists. Received: {path}"
            )
        arrays, info = read_statistics(path)
        mean, cov = arrays.pop("mu"), arrays.pop("sigma")
        info = info or _foreign_info(path)
        if feature_extractor is not None:
            _check_extractor(path, info, feature_extractor)
        # Of an unknown number of images only the covariance counts, and not its factor.
        count = info["num_images"] or 2
        mean, cov = mean.astype(np.float64), cov.astype(np.float64)
        halves = None
        if HALVES[0][0] in arrays:
            parts = [[arrays.pop(name) for name in half] for half in HALVES]
            halves = tuple(Moments(int(count), *rest) for count, *rest in parts)
        return cls(Moments(count, mean, cov * (count - 1)), info, halves, arrays)

    @classmethod
    def cached(cls, images, extraction, dataset, split, num_images, cache_dir, **kwargs):
        """Reads the statistics from a folder, or computes them and puts them there.

        A file is found by the names, the number and the size of the images, and the extractor.
        Arrays are compared with what it was made of besides, and a `FolderImages` by the names,
        sizes and times of its files; of other iterables the first batch is read in any case.

        Args:
            images: As in `compute`.
            extraction: A `FeatureExtraction`.
            dataset: String, the name of the data set.
            split: String or `None`, the name of its split.
            num_images: Integer, the number of images: a part of the file's key, and checked.
            cache_dir: String or `pathlib.Path`, the folder.
            **kwargs: As in `compute`.

        Returns:
            `ReferenceStatistics`.

        Raises:
            ValueError: As in `compute` and `load`, and if there aren't `num_images` images.
        """
        names, keep = tuple(kwargs.pop("names", ("features",))), set(kwargs.pop("keep", ()))
        files, known = getattr(images, "files_sha256", None), None
        if is_endless(images):
            images = first_images(images, num_images, extraction.batch_size, "num_images")
        images, shape, has_labels = peek(images)
        extractor = extractor_info(extraction.feature_extractor)
        key = [dataset, split, num_images, extractor, extraction.value_range, names[0]]
        key = json.dumps([*key, shape, files])
        name = "".join(x if x.isalnum() else "_" for x in f"{dataset}_{split}_{num_images}")
        digest = hashlib.sha256(key.encode()).hexdigest()[:16]
        path = pathlib.Path(check_path("cache_dir", cache_dir)) / f"{name}_{digest}.npz"
        if path.is_file():
            known = cls.load(path, extraction.feature_extractor)
            if known._is_of(images, num_images, has_labels) and keep <= set(known.arrays):
                return known
            # What it has stays in it, so that two evaluations don't make it anew by turns.
            keep |= set(known.arrays) - {"labels"}
            names = tuple(dict.fromkeys([*names, *sorted(keep)]))
        computed = cls.compute(images, extraction, dataset, split, names, sorted(keep), **kwargs)
        if computed.num_images != num_images:
            raise ValueError(
                f"`num_images` must be the number of images of {dataset}, which has "
                f"{computed.num_images}. Received: num_images={num_images}"
            )
        computed.save(path)
        return computed

    def _is_of(self, images, num_images, has_labels):
        """Whether the statistics can be of these images, as far as that is told at once.

        Args:
            images: Array, pair of arrays, or an iterable, of which nothing is read.
            num_images: Integer, how many they are.
            has_labels: Boolean, whether labels come with the images.
        """
        known = self.arrays.get("labels")
        if self.num_images != num_images or (has_labels and known is None):
            return False
        if not (isinstance(images, tuple) or hasattr(images, "shape")):
            return True
        images, labels = images if has_labels else (images, None)
        if has_labels and not np.array_equal(known, labels):
            return False
        pixels = np.ascontiguousarray(to_numpy(images, "images"))
        return hashlib.sha256(pixels).hexdigest() == self.info["sha256"]


def _foreign_info(path):
    """What can be said of a file that says nothing of itself."""
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    return {
        "dataset": path.name,
        "split": None,
        "num_images": None,
        "sha256": digest,
        "image_shape": None,
        "feature_extractor": None,
        "resize": None,
    }


def _check_extractor(path, info, feature_extractor):
    if info["feature_extractor"] is None:
        return
    for name, value in extractor_info(feature_extractor).items():
        if info[name] != value:
            raise ValueError(
                f"`reference` must be of the extractor that the images are compared in: {name} "
                f"{value}. Received: {path} of {name} {info[name]}"
            )
    check_is_versioned(feature_extractor, "reference")


def _npz_path(path):
    path = pathlib.Path(check_path("path", path))
    if path.suffix != ".npz":
        raise ValueError(f"`path` must end in .npz. Received: path={path}")
    return path
