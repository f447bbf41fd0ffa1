"""Pictures for TensorBoard, written without the tensorboard package."""

import numpy as np

from keras_sagan.lazy import tf


class ImageLog:
    """Writes pictures into an event file that TensorBoard shows under Images.

    `tf.summary.image` needs the tensorboard package, which TensorFlow doesn't bring any more.

    Args:
        log_dir: String or path. The folder of event files; it is made if it isn't there.
    """

    def __init__(self, log_dir):
        self._writer = tf.summary.create_file_writer(str(log_dir))

    def write(self, tag, image, step):
        """Adds a picture.

        Args:
            tag: String. The picture's name.
            image: uint8 array in [0, 255] of shape `(height, width, channels)`.
            step: Integer. Where it stands on the slider.
        """
        metadata = tf.compat.v1.SummaryMetadata()
        metadata.plugin_data.plugin_name = "images"
        height, width, _ = image.shape
        png = tf.io.encode_png(np.ascontiguousarray(image)).numpy()
        # What TensorBoard's plugin reads: the size as text, then the encoded images.
        tensor = tf.constant([str(width).encode(), str(height).encode(), png])
        with self._writer.as_default():
            tf.summary.write(tag, tensor, step=step, metadata=metadata)
        self._writer.flush()
