"""Writes pictures for TensorBoard without the tensorboard package."""

import numpy as np

from keras_sagan.lazy import tf


class ImageLog:
    """Writes pictures to an event file; TensorBoard shows them under Images.

    `tf.summary.image` needs the tensorboard package, which TensorFlow no longer installs.
    """

    def __init__(self, log_dir: str):
        self._writer = tf.summary.create_file_writer(log_dir)

    def write(self, tag: str, image: np.ndarray, step: int):
        """Adds a uint8 picture of shape `(height, width, channels)` with a tag and a step."""
        metadata = tf.compat.v1.SummaryMetadata()
        metadata.plugin_data.plugin_name = "images"
        height, width, _ = image.shape
        png = tf.io.encode_png(np.ascontiguousarray(image)).numpy()
        # TensorBoard expects the width and height as text, followed by the encoded images.
        tensor = tf.constant([str(width).encode(), str(height).encode(), png])
        with self._writer.as_default():
            tf.summary.write(tag, tensor, step=step, metadata=metadata)
        self._writer.flush()
