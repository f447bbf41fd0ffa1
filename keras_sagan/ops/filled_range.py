"""A warning for images that are probably of another range than the one declared."""

import warnings

MANY = 16  # images; fewer may well be dark


class FilledRange:
    """Warns once if many images lie in one half of their range, however they come in batches.

    Args:
        name: String, what the images are.
        advice: String, what to do about it.
        many: Integer, the images from which on they are judged. Defaults to 16.
    """

    def __init__(self, name, advice, many=MANY):
        self._name, self._advice, self.many = name, advice, many
        self.reset()

    def reset(self):
        """Forgets the images so far."""
        self._count, self._least, self._most = 0, float("inf"), float("-inf")

    def __call__(self, images, low, high):
        """Looks at a batch of images that should fill the range from `low` to `high`."""
        if not images.size or self._count >= self.many:
            return
        self._count += len(images)
        self._least = min(self._least, images.min())
        self._most = max(self._most, images.max())
        if self._least == self._most:  # Images of one value tell nothing.
            self._count = 0
        is_narrow = self._least < self._most <= self._least + 0.5001 * (high - low)
        if self._count >= self.many and is_narrow:
            warnings.warn(
                f"{self._name} fill no more than half of the range ({low:g}, {high:g}): they lie "
                f"in [{self._least:g}, {self._most:g}]. If that is their whole range, "
                f"{self._advice}.",
                stacklevel=4,
            )
