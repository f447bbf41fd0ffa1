"""Archives of emoji with the structure of the real ones, and few images in one color each."""

import hashlib
import io
import json
import tarfile

from PIL import Image

from keras_sagan.data import emoji

# Code points, category and subcategory. One concept has no Fluent drawing, and one category is
# too small.
CONCEPTS = [
    *((f"1F{600 + i}", "Smileys & Emotion", "face-smiling") for i in range(12)),
    *((f"1F{400 + i}", "Animals & Nature", "animal-bird") for i in range(12)),
    ("1F3C3-200D-2640-FE0F", "Animals & Nature", "animal-bird"),
    ("1F3C3-200D-2642-FE0F", "Animals & Nature", "animal-bird"),
    ("1F3C3", "Animals & Nature", "animal-bird"),
    ("1F999", "Animals & Nature", "no-fluent"),
    ("1F1E9-1F1EA", "Flags", "country-flag"),
]


def picture(size, color, kind):
    """Returns an image file whose left half is `color` and whose right half is transparent."""
    image = Image.new("RGBA", (size, size), color)
    image.paste((0, 0, 0, 0), (size // 2, 0, size, size))
    file = io.BytesIO()
    image.save(file, kind, lossless=True)
    return file.getvalue()


def write_archive(path, files):
    with tarfile.open(path, "w:gz") as archive:
        for name, content in files.items():
            info = tarfile.TarInfo(f"package/{name}")
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return hashlib.sha256(path.read_bytes()).hexdigest()


def write_archives(patch, folder):
    """Writes both archives, and has the package expect their digests and two concepts a category.

    Args:
        patch: A `pytest.MonkeyPatch`.
        folder: A `pathlib.Path`.
    """
    entries = [
        {"unified": code, "image": f"{code.lower()}.png", "category": x, "subcategory": y}
        for code, x, y in CONCEPTS
    ]
    red, blue = picture(64, (255, 0, 0, 255), "PNG"), picture(256, (0, 0, 255, 255), "WEBP")
    noto = {f"img/google/64/{entry['image']}": red for entry in entries}
    noto |= {"emoji.json": json.dumps(entries).encode(), "img/google/64/1f3c3-1f3fb.png": red}
    fluent = {f"assets/{code.lower()}.webp": blue for code, *_ in CONCEPTS if code != "1F999"}
    packages = {}
    for (style, (name, version, _)), files in zip(emoji._PACKAGES.items(), (noto, fluent)):
        digest = write_archive(folder / f"{name.split('/')[-1]}-{version}.tgz", files)
        packages[style] = (name, version, digest)
    patch.setattr(emoji, "_PACKAGES", packages)
    patch.setattr(emoji, "_MIN_CONCEPTS", 2)
