"""Statistics of real images: computed once, cached in a file, read from other projects' files."""

import hashlib
import json
import os
import pathlib
from collections.abc import Callable, Iterable, Sequence

import numpy as np

from keras_sagan.checks import check_integer, check_path
from keras_sagan.metrics.features import FeatureExtraction, to_numpy
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

    Use `ReferenceStatistics.compute` or `ReferenceStatistics.load`. Images are streamed; the
    moments take O(dim²) memory, and features are kept only if a metric needs them.

    A file is a `.npz` with `mu` and `sigma`, which pytorch-fid, clean-fid and torch-fidelity's
    functions read, and this package reads theirs. Files of this package also describe their images
    and their extractor, and can't be used with another extractor.

    Args:
        moments: `Moments` of the features.
        info: What the statistics are of: `dataset`, `split`, `num_images` (`None` if a file
            doesn't say), `sha256` of the images (or of such a file), `feature_extractor`,
            `resize`, `image_shape`.
        halves: Pair of `Moments`, of the images with even and with odd numbers. Defaults to `None`.
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

    def __init__(
        self,
        moments: Moments,
        info: dict,
        halves: Sequence[Moments] | None = None,
        arrays: dict[str, np.ndarray] | None = None,
    ):
        self.moments, self.info, self.halves = moments, dict(info), halves
        self.arrays = dict(arrays or {})

    @classmethod
    def compute(
        cls,
        images: Iterable,
        extraction: FeatureExtraction,
        dataset: str,
        split: str | None = None,
        names: Sequence[str] = ("features",),
        keep: Sequence[str] = (),
        progress: Callable | None = None,
        num_reference: int | None = None,
    ) -> "ReferenceStatistics":
        """Computes the statistics in one pass over the images.

        Args:
            images: uint8 images in [0, 255] or floats in the extraction's range: an array, a pair
                of arrays (images, labels), or an iterable of batches of either.
            extraction: A `FeatureExtraction`.
            dataset: The name of the data set.
            split: The name of its split. Defaults to `None`.
            names: The outputs of the extractor to take.
            keep: Those of `names` to keep for every image. Defaults to none.
            progress: Function, called with the number of images done. Defaults to a bar if it
                takes more than ten seconds.
            num_reference: How many of the images to take, from the first on. Defaults to `None`:
                all of them, and endless images are refused.

        Raises:
            ValueError: If there are fewer than 2 or `num_reference` images, if they never end or
                have mixed shapes, or for images that the extraction refuses.
        """
        if num_reference is not None:
            num_reference = check_integer("num_reference", num_reference, 2)
            images = first_images(images, num_reference, extraction.batch_size, "num_reference")
        check_ends(images, "images")
        progress = progress or Progress("Reference images", length_of(images))
        digest, count, shape = hashlib.sha256(), 0, ()
        halves: list = [None, None]
        parts = {name: [] for name in ARRAYS}
        for batch, labels in batches_of(images, extraction.batch_size):
            found = extraction(batch, names, count)
            if shape not in ((), batch.shape[1:]):
                raise ValueError(
                    f"`images` must have one shape; those before had {shape}. Received: images of "
                    f"shape {batch.shape[1:]} from number {count} on"
                )
            shape = batch.shape[1:]
            digest.update(np.ascontiguousarray(batch).tobytes())
            for half in (0, 1):
                part = found[names[0]][(half + count) % 2 :: 2]
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
        arrays = {name: np.concatenate(part) for name, part in parts.items() if part}
        if len(arrays.get("labels", ())) not in (0, count):
            raise ValueError(
                "`images` must come with labels in every batch or in none. Received: labels for "
                f"{len(arrays['labels'])} of {count} images"
            )
        info = {
            "dataset": dataset,
            "split": split,
            "num_images": count,
            "sha256": digest.hexdigest(),
            "image_shape": list(shape),
            **extractor_info(extraction.feature_extractor),
        }
        return cls(merge_moments(*halves), info, tuple(halves), arrays)

    @property
    def num_images(self) -> int | None:
        """The number of images, or `None` if a file of another project doesn't say."""
        return self.info["num_images"]

    @property
    def class_counts(self) -> np.ndarray | None:
        """Integer array of shape (num_classes,), or `None` without labels."""
        return np.bincount(self.arrays["labels"]) if "labels" in self.arrays else None

    def split(self) -> list["ReferenceStatistics"]:
        """Returns the statistics of the images with even and with odd numbers.

        Raises:
            ValueError: If there are none, as in a file of another project.
        """
        if self.halves is None:
            raise ValueError("The statistics must have `halves`. Received: halves=None")
        return [
            ReferenceStatistics(
                moments,
                {**self.info, "num_images": moments.count},
                arrays={name: value[half::2] for name, value in self.arrays.items()},
            )
            for half, moments in enumerate(self.halves)
        ]

    def check_extractor(self, feature_extractor: Callable, source: str) -> None:
        """Raises if the statistics, which `source` names, are known to be of another extractor."""
        for name, value in extractor_info(feature_extractor).items():
            if self.info[name] not in (None, value):
                raise ValueError(
                    "`reference` must be measured with the same extractor as the images: "
                    f"{name} {value}. Received: {source} with {name} {self.info[name]}"
                )

    def save(self, path: str | pathlib.Path) -> None:
        """Writes a `.npz` file, completely or not at all: `mu`, `sigma` and all else."""
        path = _npz_path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        arrays: dict = {
            "mu": self.moments.mean,
            "sigma": covariance(self.moments),
            "info": np.array(json.dumps(self.info)),
            **self.arrays,
        }
        for names, moments in zip(HALVES, self.halves or ()):
            arrays.update(zip(names, moments))
        replace_file(path, lambda file: np.savez(file, **arrays))

    @classmethod
    def load(
        cls, path: str | os.PathLike, feature_extractor: Callable | None = None
    ) -> "ReferenceStatistics":
        """Reads a file of this package, or `mu` and `sigma` of another project's.

        Args:
            path: The path of a `.npz` file.
            feature_extractor: The extractor of the images to compare with. If the file says which
                extractor it is of, it must be the same. Defaults to `None`: not checked.

        Raises:
            FileNotFoundError: If there is no such file.
            ValueError: If the file holds no statistics, is damaged, or is of another extractor or
                of one that can't be identified.
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
        # If the number of images is unknown, any will do: only the covariance is used.
        count = info["num_images"] or 2
        mean, cov = (arrays.pop(name).astype(np.float64) for name in ("mu", "sigma"))
        halves = None
        if HALVES[0][0] in arrays:
            parts = ([arrays.pop(name) for name in names] for names in HALVES)
            halves = tuple(Moments(int(number), *rest) for number, *rest in parts)
        found = cls(Moments(count, mean, cov * (count - 1)), info, halves, arrays)
        if feature_extractor is not None and info["feature_extractor"] is not None:
            found.check_extractor(feature_extractor, str(path))
            check_is_versioned(feature_extractor, "reference")
        return found

    @classmethod
    def cached(
        cls,
        images: Iterable,
        extraction: FeatureExtraction,
        dataset: str,
        split: str | None,
        num_images: int,
        cache_dir: str | pathlib.Path,
        **kwargs,
    ) -> "ReferenceStatistics":
        """Reads the statistics from a folder, or computes them and saves them there.

        The key of a file is the names, the number and the size of the images, and the extractor;
        for a `FolderImages` also the names, sizes and times of its files. Arrays must be the ones
        that the file was computed from; of other iterables the first batch is always read.

        Args:
            images, extraction, dataset, split: As in `compute`.
            num_images: The number of images.
            cache_dir: The folder.
            **kwargs: As in `compute`.

        Raises:
            ValueError: As in `compute` and `load`, and if there aren't `num_images` images.
        """
        names, keep = tuple(kwargs.pop("names", ("features",))), set(kwargs.pop("keep", ()))
        files = getattr(images, "files_sha256", None)
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
            # The new file keeps what this one has: two evaluations don't overwrite each other's.
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
        """Whether the statistics can be of these images; iterables aren't read."""
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


def _npz_path(path):
    path = pathlib.Path(check_path("path", path))
    if path.suffix != ".npz":
        raise ValueError(f"`path` must end in .npz. Received: path={path}")
    return path
