"""Checks of arguments, and imports of optional packages.

A check returns the plain Python value, which a configuration in JSON can hold, and otherwise raises
an error that names the argument, what was expected and what was received.
"""

import importlib
import math
import numbers
import operator
import os
import warnings

import keras
import numpy as np

__all__ = []  # For this package alone: nothing of it is in the reference.

MAX_COUNT = 1000
"""The most repetitions within a step: each is a part of the program."""

MAX_SIDE = 2**16
"""The largest step over a map: beyond 2^31 TensorFlow ends the process."""

MAX_SIZE = 2**31 - 1
"""The largest integer that TensorFlow and XLA count places and steps with."""

MAX_NUMBERS = 2**30
"""The most numbers of a weight: 4 GB in float32."""

# Where a module's package has another name on PyPI.
_PACKAGES = {"PIL": "pillow", "ai_edge_litert": "ai-edge-litert"}


def check_integer(name, value, minimum=None, maximum=None, optional=False, expected=None):
    """Checks an integer: one of Python or numpy, or an integer array without axes.

    Args:
        name: String. The argument's name.
        value: What was received for it.
        minimum: Number. The smallest value allowed. Defaults to `None`: the integer must be
            positive.
        maximum: Integer. The largest value allowed. Defaults to `None`: any.
        optional: Boolean. Whether `None` is allowed too. Defaults to `False`.
        expected: String. What the message says of the values allowed. Defaults to the bounds.

    Returns:
        A Python integer, or `None`.

    Raises:
        ValueError: For anything else. Booleans and floats aren't integers.

    Example:

    >>> import numpy as np
    >>> check_integer("batch_size", np.int64(64))
    64
    """
    if value is None and optional:
        return None
    found = _integer(value)
    least, most = 1 if minimum is None else minimum, math.inf if maximum is None else maximum
    if found is not None and least <= found <= most:
        return found
    expected = expected or _integers(minimum, maximum) + (" or None" if optional else "")
    raise ValueError(f"`{name}` must be {expected}. Received: {name}={value!r}")


def check_float(
    name, value, minimum=-math.inf, maximum=math.inf, above=None, below=None, optional=False
):
    """Checks a finite number: an integer or a float of Python or numpy.

    Args:
        name: String. The argument's name.
        value: What was received for it.
        minimum, maximum: Numbers. The closed bounds. Default to none.
        above, below: Numbers. The open bounds, each in place of the closed one.
        optional: Boolean. Whether `None` is allowed too. Defaults to `False`.

    Returns:
        A Python float, or `None`.

    Raises:
        ValueError: For anything else. Booleans and strings aren't numbers.

    Example:

    >>> check_float("momentum", 1, minimum=0, maximum=1)
    1.0
    """
    if value is None and optional:
        return None
    found = _real(value)
    low, high = minimum if above is None else above, maximum if below is None else below
    if found is not None:
        is_above = found >= low if above is None else found > low
        is_below = found <= high if below is None else found < high
        if is_above and is_below:
            return found
    if high < math.inf:
        brackets = "[" if above is None else "(", "]" if below is None else ")"
        expected = f"lie in {brackets[0]}{low:g}, {high:g}{brackets[1]}"
    elif low == 0:
        expected = "not be negative" if above is None else "be positive"
    elif low > -math.inf:
        expected = f"be {'at least' if above is None else 'above'} {low:g}"
    else:
        expected = "be a finite number"
    note = ", which isn't a finite number" if found is None else ""
    raise ValueError(f"`{name}` must {expected}. Received: {name}={value!r}{note}")


def check_boolean(name, value):
    """Checks that a value is `True` or `False`, of Python or numpy, and returns Python's."""
    if not isinstance(value, (bool, np.bool_)):
        raise ValueError(f"`{name}` must be True or False. Received: {name}={value!r}")
    return bool(value)


def check_pair(name, value, expected="a positive integer or a pair of them", maximum=math.inf):
    """Checks a positive integer, or a list, tuple or array of two.

    Args:
        name: String. The argument's name.
        value: What was received for it.
        expected: String. What the message says of the values allowed.
        maximum: Integer. The largest value allowed. Defaults to any.

    Returns:
        Tuple of two Python integers.

    Raises:
        ValueError: For anything else.

    Example:

    >>> check_pair("kernel_size", 3)
    (3, 3)
    """
    is_pair = isinstance(value, (list, tuple)) or isinstance(value, np.ndarray) and value.ndim
    pair = tuple(value) if is_pair else (value, value)
    found = tuple(_integer(x) for x in pair)
    if len(found) != 2 or any(x is None or not 1 <= x <= maximum for x in found):
        expected += f", at most {maximum}" if maximum < math.inf else ""
        raise ValueError(f"`{name}` must be {expected}. Received: {name}={value!r}")
    return found


def check_choice(name, value, choices, expected=None):
    """Checks that a value is one of several.

    Args:
        name: String. The argument's name.
        value: What was received for it.
        choices: Iterable of strings, integers, booleans or `None`.
        expected: String. What the message says of them. Defaults to the list of them.

    Returns:
        The choice that equals the value. `True` isn't 1, nor `1.0`.

    Raises:
        ValueError: For another value, of whatever type.

    Example:

    >>> check_choice("mode", "min", ("auto", "min", "max"))
    'min'
    """
    choices = list(choices)
    plain = (
        value.item() if isinstance(value, (np.generic, np.ndarray)) and not value.shape else value
    )
    for choice in choices:
        is_same_type = isinstance(plain, type(choice)) and not (
            isinstance(plain, bool) and not isinstance(choice, bool)
        )
        if is_same_type and plain == choice:
            return choice
    if expected is None:
        texts = [f'"{x}"' if isinstance(x, str) else str(x) for x in choices]
        expected = f"{', '.join(texts[:-1])} or {texts[-1]}"
    raise ValueError(f"`{name}` must be {expected}. Received: {name}={value!r}")


def check_choices(name, value, choices, expected=None):
    """Checks a list, tuple or set of choices.

    Args:
        name, value, expected: As in `check_choice`.
        choices: Iterable of strings or integers.

    Returns:
        Tuple of the choices that equal the values, in the order of the values.

    Raises:
        ValueError: For something else than a list, tuple or set, or for other values.

    Example:

    >>> check_choices("formats", ["onnx"], ("onnx", "litert"))
    ('onnx',)
    """
    choices = tuple(choices)
    try:
        if isinstance(value, (list, tuple, set, frozenset)):
            return tuple(check_choice(name, x, choices) for x in value)
    except ValueError:
        pass
    expected = expected or f"among {choices}, in a list or tuple"
    raise ValueError(f"`{name}` must be {expected}. Received: {name}={value!r}")


def check_dict(name, value, keys=None):
    """Checks a dictionary of options, for which `None` stands as an empty one.

    Args:
        name: String. The argument's name.
        value: What was received for it.
        keys: Collection of strings. The keys allowed. Defaults to `None`: any strings.

    Returns:
        A new dictionary.

    Raises:
        ValueError: For something else than a mapping, or other keys.
    """
    if value is None:
        return {}
    if not hasattr(value, "keys") or not hasattr(value, "__getitem__"):
        raise ValueError(f"`{name}` must be a dictionary or None. Received: {name}={value!r}")
    found = dict(value)
    if keys is not None and set(found) - set(keys):
        raise ValueError(f"`{name}` must have keys among {list(keys)}. Received: {name}={value!r}")
    if not all(isinstance(key, str) for key in found):
        raise ValueError(f"`{name}` must have strings as keys. Received: {name}={value!r}")
    return found


def check_function(name, value, optional=False):
    """Checks that something can be called, or is `None` where it is `optional`; returns it."""
    if callable(value) or (value is None and optional):
        return value
    expected = "a function or None" if optional else "a function"
    raise ValueError(f"`{name}` must be {expected}. Received: {name}={value!r}")


def check_list(name, value, optional=False):
    """Checks a list, a tuple or another sequence but a string, and returns it as a list.

    Args:
        name: String. The argument's name.
        value: What was received for it.
        optional: Boolean. Whether `None` is allowed too, and returned. Defaults to `False`.

    Returns:
        A new list, or `None`.

    Raises:
        ValueError: For anything else.
    """
    if value is None and optional:
        return None
    if hasattr(value, "__len__") and not isinstance(value, (str, bytes, dict)):
        if getattr(value, "shape", None) != ():
            return list(value)
    expected = "a list" + (" or None" if optional else "")
    raise ValueError(f"`{name}` must be {expected}. Received: {name}={value!r}")


def check_path(name, value, optional=False):
    """Checks a path, a string or `os.PathLike`, and returns it as a string, `~` expanded."""
    if value is None and optional:
        return None
    if not isinstance(value, (str, os.PathLike)):
        expected = "a string or path" + (" or None" if optional else "")
        raise ValueError(f"`{name}` must be {expected}. Received: {name}={value!r}")
    return os.path.expanduser(os.fspath(value))


def check_string(name, value, optional=False):
    """Checks a string, and returns it; `None` too where it is optional."""
    if not isinstance(value, str) and not (value is None and optional):
        expected = "a string" + (" or None" if optional else "")
        raise ValueError(f"`{name}` must be {expected}. Received: {name}={value!r}")
    return value


def check_weight(shape, **sizes):
    """Raises for a weight of more than 2^30 numbers, before memory is allocated for it.

    Args:
        shape: Tuple of integers, the shape of the weight; others are passed over.
        **sizes: The arguments that it follows from, by name.

    Raises:
        ValueError: With the names and values of all of them.
    """
    if all(isinstance(size, int) for size in shape) and math.prod(shape) > MAX_NUMBERS:
        names = " and ".join(f"`{name}`" for name in sizes)
        received = ", ".join(f"{name}={value!r}" for name, value in sizes.items())
        raise ValueError(
            f"{names} must make a weight of at most 2**30 numbers. "
            f"Received: {received} for a weight of shape {tuple(shape)}"
        )


def require(module, purpose="Drawing pictures", extra="plot"):
    """Imports a module of an optional package.

    Args:
        module: String. Its full name, such as `"PIL.Image"`.
        purpose: String. What needs it, which begins the message. Defaults to
            `"Drawing pictures"`.
        extra: String. The extra of this package that installs it. Defaults to `"plot"`.

    Returns:
        The module.

    Raises:
        ImportError: If the package isn't installed, with the line that installs it.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        top = module.split(".")[0]
        raise ImportError(
            f"{purpose} needs {_PACKAGES.get(top, top)}, which could not be imported ({error}). "
            f'Install it with:\npip install "keras_sagan[{extra}]"'
        ) from error


def check_labels(labels, num_classes, rank=1, argument="labels"):
    """Raises unless labels are integer class ids of the given rank and range.

    Rank and dtype are checked always, the range where the values can be read: eagerly, not while
    a graph is traced. An id out of range would otherwise wrap around or be clamped in silence.

    Args:
        labels: Array-like or tensor of integer class ids.
        num_classes: Integer, the number of classes.
        rank: Integer, the expected rank, or `None` for any. Defaults to 1: `(batch,)`.
        argument: String, the name to use in messages. Defaults to `"labels"`.

    Returns:
        The labels as a tensor (a `KerasTensor` stays what it is).

    Raises:
        ValueError: For a dtype that is not an integer, another rank, or an id outside
            `[0, num_classes)`.
    """
    if not isinstance(labels, keras.KerasTensor):
        labels = keras.ops.convert_to_tensor(labels)
    dtype = keras.backend.standardize_dtype(labels.dtype)
    if "int" not in dtype:
        raise ValueError(
            f"`{argument}` must be integer class ids, not probabilities or one-hot vectors. "
            f"Received: {argument} of dtype {dtype} and shape {tuple(labels.shape)}"
        )
    if rank is not None and len(labels.shape) != rank:
        expected = {0: "()", 1: "(batch,)"}.get(rank, f"rank {rank}")
        raise ValueError(
            f"`{argument}` must have shape {expected}: one integer class id per image. "
            f"Received: {argument} of shape {tuple(labels.shape)}"
        )
    values = known_values(labels)
    if values is not None and values.size:
        outside = values[(values < 0) | (values >= num_classes)]
        if outside.size:
            raise ValueError(
                f"`{argument}` must lie in [0, {num_classes}), the classes there are. "
                f"Received: {argument} with {outside.flat[0]}"
            )
    return labels


def known_values(x):
    """Returns the values of a tensor as a numpy array, or `None` while they are not known."""
    try:
        return np.asarray(keras.ops.convert_to_numpy(x))
    except Exception:  # Each backend has its own error for a tensor that is being traced.
        return None


def is_absent(part):
    """Whether a part of a batch is missing, such as the labels in `(images, None)`."""
    # Keras passes on a None that a generator yields as a tf.experimental.Optional.
    return part is None or type(part).__name__.startswith(("Optional", "_Optional"))


def check_dense(**values):
    """Raises for what isn't one dense array, by the name of the argument."""
    for name, value in values.items():
        kind = type(value).__name__
        if isinstance(value, (list, tuple)):
            advice = "`np.asarray` makes one of equally large parts"
            kind = f"a {kind} of {len(value)}"
        elif isinstance(value, dict):
            kind, advice = f"a dict with the keys {list(value)}", "give the array in it"
        elif "Ragged" in kind:
            advice = "make it dense with `to_tensor()`"
        elif "Sparse" in kind or type(value).__module__.startswith("scipy.sparse"):
            advice = "make it dense, as with `tf.sparse.to_dense`"
        elif str(getattr(value, "dtype", "")) == "object":
            kind, advice = "an array of objects", "give all its parts one shape and a plain dtype"
        else:
            continue
        raise ValueError(
            f"`{name}` must be one dense array or tensor: {advice}. Received: {name}={kind}"
        )


def check_images(images, argument="images"):
    """Raises unless images are of rank 4 and of dtype uint8 or float."""
    dtype = keras.backend.standardize_dtype(images.dtype)
    if len(images.shape) != 4:
        raise ValueError(
            f"`{argument}` must have shape (batch, height, width, channels). "
            f"Received: {argument} of shape {tuple(images.shape)}"
        )
    if dtype != "uint8" and "float" not in dtype:
        raise ValueError(
            f"`{argument}` must be uint8 in [0, 255] or float in [-1, 1]. "
            f"Received: {argument} of dtype {dtype}"
        )


def check_values(images, image_shape, argument="images"):
    """Raises unless the images of a batch fit the model, are finite and lie in their range.

    Args:
        images: Array of shape `(batch, height, width, channels)`, uint8 or float.
        image_shape: Tuple `(height, width, channels)` that the discriminator takes; `None`
            entries fit anything.
        argument: String, the name to use in messages. Defaults to `"images"`.

    Returns:
        The images as a numpy array.

    Raises:
        ValueError: For another shape, NaN or infinite values, or floats outside [-1, 1].
    """
    images = np.asarray(keras.ops.convert_to_numpy(images))
    check_shape(images.shape, image_shape, argument)
    if images.dtype == np.uint8 or not images.size:
        return images
    images = images.astype("float32", copy=False)
    low, high = float(images.min()), float(images.max())
    if not (np.isfinite(low) and np.isfinite(high)):
        broken = np.flatnonzero(~np.isfinite(images).all(axis=(1, 2, 3)))
        raise ValueError(
            f"`{argument}` must be finite. Received: {argument} with NaN or infinite values at "
            f"{broken[:5].tolist()} of a batch"
        )
    if low < -1.001 or high > 1.001:
        raise ValueError(
            f"Float `{argument}` must lie in [-1, 1]; give uint8 for [0, 255], or rescale them. "
            f"Received: {argument} between {low:g} and {high:g} in a batch"
        )
    return images


def check_shape(shape, image_shape, argument="images"):
    """Raises unless images of a shape `(batch, height, width, channels)` fit the model."""
    fits = all(a is None or b is None or a == b for a, b in zip(shape[1:], image_shape))
    if not fits:
        raise ValueError(
            f"`{argument}` must have shape (batch, {', '.join(map(str, image_shape))}). "
            f"Received: {argument} of shape {tuple(shape)}"
        )


class FilledRange:
    """Warns once if many images lie in one half of their range, however they come in batches.

    Args:
        name: String, what the images are.
        advice: String, what to do about it.
        many: Integer, the images that are enough to judge: fewer may well be dark. Defaults to 16.
    """

    def __init__(self, name, advice, many=16):
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


class RangeWarning:
    """Warns once if images fill no more than half of their range, such as floats in [0, 1].

    Args:
        argument: String, the name to use in messages.
    """

    def __init__(self, argument):
        advice = "rescale floats to [-1, 1] and uint8 to [0, 255]"
        self._of_floats = FilledRange(f"Float `{argument}`", advice)
        self._of_uint8 = FilledRange(f"uint8 `{argument}`", advice)

    def __call__(self, images):
        """Looks at an array of images, uint8 or float."""
        if images.dtype == np.uint8:
            self._of_uint8(images, 0, 255)
        else:
            # Floats without a negative number are hardly ever in [-1, 1]; a few may be dark.
            self._of_floats.many = 1 if images.size and images.min() >= 0 else 4
            self._of_floats(images, -1, 1)


def _integer(value):
    """The value as a Python integer, or `None` if it is none."""
    if isinstance(value, bool) or "bool" in str(getattr(value, "dtype", "")):
        return None
    try:
        return operator.index(value)
    except Exception:  # Each backend has its own error for a tensor that isn't an integer.
        return None


def _real(value):
    """The value as a finite Python float, or `None` if it is none."""
    dtype = str(getattr(value, "dtype", ""))
    is_number = isinstance(value, numbers.Real) and not isinstance(value, bool)
    is_scalar = getattr(value, "shape", None) == () and ("float" in dtype or "int" in dtype)
    if not is_number and not is_scalar:
        return None
    try:
        found = float(value)
    except Exception:  # Too large an integer, or a tensor without a value.
        return None
    return found if math.isfinite(found) else None


def _integers(minimum, maximum):
    """Words for the integers within bounds."""
    if maximum is not None:
        end = maximum + 1
        # 2**31 says more than 2147483648.
        is_power = end > 2**16 and end.bit_count() == 1
        end = f"2**{end.bit_length() - 1}" if is_power else end
        return (
            f"a positive integer below {end}"
            if minimum is None
            else f"an integer in [{minimum}, {end})"
        )
    if minimum is None:
        return "a positive integer"
    return "an integer" if minimum == -math.inf else f"an integer of at least {minimum}"
