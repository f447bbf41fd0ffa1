"""Loads images from files, folders and TensorFlow Datasets, and makes input pipelines."""

from keras_sagan.data.emoji import EmojiImages, load_emoji
from keras_sagan.data.fashion_mnist import FASHION_MNIST_CLASSES, load_fashion_mnist
from keras_sagan.data.folder import ImageFolder, StreamedImages, load_image_folder
from keras_sagan.data.idx import read_idx
from keras_sagan.data.pipeline import make_dataset, pad_to_32, spread_indices, steps_per_epoch
from keras_sagan.data.tfds import DatasetInfo, load_tfds, square_resize

__all__ = [
    "FASHION_MNIST_CLASSES",
    "DatasetInfo",
    "EmojiImages",
    "ImageFolder",
    "StreamedImages",
    "load_emoji",
    "load_fashion_mnist",
    "load_image_folder",
    "load_tfds",
    "make_dataset",
    "pad_to_32",
    "read_idx",
    "spread_indices",
    "square_resize",
    "steps_per_epoch",
]
