"""Checks of arguments, imports of optional packages, and a progress bar, for all other files.

A check returns a plain Python value, which can be stored in a JSON configuration, or raises a
`ValueError`. With `optional=True`, `None` is allowed too.
"""

import contextlib
import importlib
import inspect
import math
import numbers
import operator
import os
import re
import time
import warnings

import keras
import numpy as np

__all__ = []

MAX_COUNT = 1000  # The maximum number of repetitions in a step; unrolled loops compile slowly.

MAX_SIDE = 2**16  # The maximum kernel size or stride; TensorFlow crashes for values above 2^31.

MAX_SIZE = 2**31 - 1  # The largest int32; TensorFlow and XLA use int32 indices.
_PACKAGES = {"PIL": "pillow", "ai_edge_litert": "ai-edge-litert"}


def check_integer(name, value, minimum=None, maximum=None, optional=False, expected=None):
    """Checks that a value is an integer (or an integer array of rank 0), by default a positive one.

    `minimum=-math.inf` allows any integer. Error messages show `expected` instead of the bounds.
    """
    if value is None and optional:
        return None
    found = _integer(value)
    least, most = 1 if minimum is None else minimum, math.inf if maximum is None else maximum
    if found is None or not least <= found <= most:
        words = _integers(minimum, maximum) + (" or None" if optional else "")
        raise _wrong(name, value, f"be {expected or words}")
    return found


def check_float(
    name, value, minimum=-math.inf, maximum=math.inf, above=None, below=None, optional=False
):
    """Checks that a number is finite and within its bounds; `above` and `below` are exclusive."""
    if value is None and optional:
        return None
    found = _real(value)
    low, high = minimum if above is None else above, maximum if below is None else below
    if found is not None and low <= found <= high and found not in (above, below):
        return found
    if high < math.inf:
        expected = f"lie in {'[' if above is None else '('}{low:g}, {high:g}"
        expected += "]" if below is None else ")"
    elif low == 0:
        expected = "not be negative" if above is None else "be positive"
    elif low > -math.inf:
        expected = f"be {'at least' if above is None else 'above'} {low:g}"
    else:
        expected = "be a finite number"
    raise _wrong(name, value, expected, ", which isn't a finite number" if found is None else "")


def check_boolean(name, value):
    """Checks that a value is a Python or numpy boolean."""
    if not isinstance(value, (bool, np.bool_)):
        raise _wrong(name, value, "be True or False")
    return bool(value)


def check_tuple(name, value, count, maximum=math.inf, expected=None):
    """Returns a tuple of `count` positive integers; a single integer is repeated.

    Error messages show `expected` instead of `count`.
    """
    is_tuple = isinstance(value, (list, tuple)) or isinstance(value, np.ndarray) and value.ndim
    found = tuple(_integer(x) for x in (value if is_tuple else [value] * count))
    if len(found) != count or any(x is None or not 1 <= x <= maximum for x in found):
        words = {1: "it in a tuple", 2: "a pair of them"}.get(count, f"{count} of them")
        expected = expected or f"a positive integer or {words}"
        expected += f", at most {maximum}" if maximum < math.inf else ""
        raise _wrong(name, value, f"be {expected}")
    return found


def check_choice(name, value, choices, expected=None):
    """Checks that `value` equals a choice and has the same type: `True` and 1.0 don't match 1."""
    choices = list(choices)
    is_scalar = isinstance(value, (np.generic, np.ndarray)) and not value.shape
    plain = value.item() if is_scalar else value
    for choice in choices:
        is_same_type = isinstance(plain, type(choice)) and (
            isinstance(plain, bool) == isinstance(choice, bool)
        )
        if is_same_type and plain == choice:
            return choice
    *texts, last = [f'"{x}"' if isinstance(x, str) else str(x) for x in choices]
    raise _wrong(name, value, "be " + (expected or f"{', '.join(texts)} or {last}"))


def check_choices(name, value, choices, expected=None):
    """Checks that a list, tuple or set contains only `choices`, and returns it as a tuple."""
    choices = tuple(choices)
    if isinstance(value, (list, tuple, set, frozenset)):
        with contextlib.suppress(ValueError):
            return tuple(check_choice(name, x, choices) for x in value)
    raise _wrong(name, value, f"be {expected or f'among {choices}, in a list or tuple'}")


def check_dict(name, value, keys=None):
    """Checks that a value is a dictionary whose keys are in `keys` (if given); returns a copy."""
    if value is None:
        return {}
    if not hasattr(value, "keys") or not hasattr(value, "__getitem__"):
        raise _wrong(name, value, "be a dictionary or None")
    found = dict(value)
    if keys is not None and set(found) - set(keys):
        raise _wrong(name, value, f"have keys among {list(keys)}")
    if not all(isinstance(key, str) for key in found):
        raise _wrong(name, value, "have strings as keys")
    return found


def check_function(name, value):
    """Checks that a value is callable."""
    return _checked(name, value, callable(value), "a function", optional=False)


def check_list(name, value, optional=False):
    """Checks that a value is a list, array or other sequence, but not a string; returns a list."""
    is_list = hasattr(value, "__len__") and not isinstance(value, (str, bytes, dict))
    is_list = is_list and getattr(value, "shape", None) != ()
    value = _checked(name, value, is_list, "a list", optional)
    return None if value is None else list(value)


def check_path(name, value, optional=False, allow_url=False):
    """Checks that a path isn't empty, and returns it as a string with `~` expanded.

    A URL would become a local folder named `gs:`, unless the caller can open it.
    """
    is_path = isinstance(value, (str, os.PathLike)) and os.fspath(value) != ""
    value = _checked(name, value, is_path, "a non-empty string or path", optional)
    if value is None:
        return None
    path = os.path.expanduser(os.fspath(value))
    if "\0" in path:
        raise _wrong(name, value, "not contain NUL")
    is_url = re.match(r"[a-zA-Z][\w+.-]+:/", path)  # A drive of Windows has one letter.
    if is_url and not allow_url:
        raise _wrong(name, value, "be a local path, not a URL")
    if is_url and "://" not in path:
        raise _wrong(name, value, "be a string if it is a URL, because `Path` removes a slash")
    return path


def check_string(name, value, optional=False):
    """Checks that a value is a string."""
    return _checked(name, value, isinstance(value, str), "a string", optional)


def check_weight(shape, **sizes):
    """Raises an error if a weight has more than 2^30 elements (4 GB); the message lists `sizes`."""
    if all(isinstance(size, int) for size in shape) and math.prod(shape) > 2**30:
        names = " and ".join(f"`{name}`" for name in sizes)
        received = ", ".join(f"{name}={value!r}" for name, value in sizes.items())
        raise ValueError(
            f"{names} must make a weight of at most 2**30 numbers. "
            f"Received: {received} for a weight of shape {tuple(shape)}"
        )


def accepts(function, count):
    """Returns whether a function can be called with `count` positional arguments."""
    try:
        inspect.signature(function).bind(*[None] * count)
    except TypeError:
        return False
    except ValueError:  # Some functions written in C have no signature.
        pass
    return True


def require(module, purpose="Drawing pictures", extra="plot"):
    """Imports a module, or raises an `ImportError` that names the `extra` to install."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        top = module.split(".")[0]
        raise ImportError(
            f"{purpose} needs {_PACKAGES.get(top, top)}, which could not be imported ({error}). "
            f'In a clone of keras_sagan, run:\npip install ".[{extra}]"'
        ) from error


def check_labels(labels, num_classes, rank=1, argument="labels"):
    """Checks integer class ids, and returns them as a tensor (or an unchanged `KerasTensor`).

    The rank (any rank if `None`) and the dtype are always checked. The range is checked only if the
    values are known. In a traced graph, class ids that are out of range silently wrap around or are
    clamped.
    """
    expected = "be integer class ids, not probabilities or one-hot vectors"
    if not isinstance(labels, keras.KerasTensor):
        try:
            labels = keras.ops.convert_to_tensor(labels)
        except (TypeError, ValueError) as error:  # Such as an array of strings.
            raise _error(argument, expected, f"={labels!r}") from error
    dtype = keras.backend.standardize_dtype(labels.dtype)
    if "int" not in dtype:
        raise _error(argument, expected, f" of dtype {dtype} and shape {tuple(labels.shape)}")
    if rank is not None and len(labels.shape) != rank:
        expected = f"have shape {'(batch,)' if rank == 1 else f'of rank {rank}'}"
        expected += ": one integer class id per image"
        raise _error(argument, expected, f" of shape {tuple(labels.shape)}")
    values = known_values(labels)
    if values is not None:
        outside = values[(values < 0) | (values >= num_classes)]
        if outside.size:
            expected = f"lie in [0, {num_classes}), the ids of the classes"
            raise _error(argument, expected, f" with {outside.flat[0]}")
    return labels


def check_class_ids(labels, num_classes, count, argument="labels"):
    """Returns `count` class ids as an int32 array, or `None` for a model without classes."""
    if num_classes is None:
        if labels is not None:
            raise ValueError(
                f"`{argument}` must not be given, as the model has num_classes=None. "
                f"Received: {argument}={labels}"
            )
        return None
    if labels is None:
        raise ValueError(
            f"`{argument}` must be given, as the model has num_classes={num_classes}. "
            f"Received: {argument}=None"
        )
    labels = np.asarray(labels)
    if labels.ndim == 0:
        labels = np.full(count, labels)
    check_labels(labels, num_classes, argument=argument)
    if len(labels) != count:
        raise ValueError(
            f"`{argument}` must be one class id or {count} of them. Received: {len(labels)} labels"
        )
    return labels.astype("int32")


def known_values(x):
    """Returns the values of a tensor, or `None` while it is being traced."""
    try:
        return np.asarray(keras.ops.convert_to_numpy(x))
    except Exception:  # Each backend raises a different error for a traced tensor.
        return None


def is_absent(part):
    """Returns whether a part of a batch is missing, such as the labels in `(images, None)`."""
    # Keras converts `None` from a generator to a `tf.experimental.Optional`.
    return part is None or type(part).__name__.startswith(("Optional", "_Optional"))


def check_dense(**values):
    """Raises an error unless each argument is a single dense array."""
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
        elif getattr(getattr(value, "dtype", None), "kind", None) in ("U", "S", "T"):
            kind, advice = "an array of strings", "give numbers, such as integer class ids"
        else:
            continue
        raise _error(name, f"be one dense array or tensor: {advice}", f"={kind}")


def check_images(images, argument="images"):
    """Raises an error unless images are of rank 4 and of dtype uint8 or float."""
    dtype = keras.backend.standardize_dtype(images.dtype)
    if len(images.shape) != 4:
        expected = "have shape (batch, height, width, channels)"
        raise _error(argument, expected, f" of shape {tuple(images.shape)}")
    if dtype != "uint8" and "float" not in dtype:
        expected = "be uint8 in [0, 255] or float in [-1, 1]"
        raise _error(argument, expected, f" of dtype {dtype}")


def check_values(images, image_shape, argument="images"):
    """Returns images as a numpy array; checks the shape, and that floats are in [-1, 1]."""
    images = np.asarray(keras.ops.convert_to_numpy(images))
    check_shape(images.shape, image_shape, argument)
    if images.dtype == np.uint8 or not images.size:
        return images
    images = images.astype("float32", copy=False)
    low, high = float(images.min()), float(images.max())
    if not (math.isfinite(low) and math.isfinite(high)):
        broken = np.flatnonzero(~np.isfinite(images).all(axis=(1, 2, 3)))[:5].tolist()
        received = f" with NaN or infinite values at {broken} of a batch"
        raise _error(argument, "be finite", received)
    if low < -1.001 or high > 1.001:
        raise ValueError(
            f"Float `{argument}` must lie in [-1, 1]; give uint8 for [0, 255], or rescale them. "
            f"Received: {argument} between {low:g} and {high:g} in a batch"
        )
    return images


def check_shape(shape, image_shape, argument="images"):
    """Raises an error unless a batch has `image_shape`; `None` in a shape matches any size."""
    pairs = zip(shape[1:], image_shape)
    fits = all(None in pair or pair[0] == pair[1] for pair in pairs)
    if not fits or len(shape) != 1 + len(image_shape):
        expected = f"have shape (batch, {', '.join(map(str, image_shape))})"
        raise _error(argument, expected, f" of shape {tuple(shape)}")


class FilledRange:
    """Warns once, with `name` and `advice`, if many images use only half of the value range."""

    def __init__(self, name, advice):
        self._name, self._advice = name, advice
        self.reset()

    def reset(self):
        """Forgets all images seen so far."""
        self._count, self._least, self._most = 0, math.inf, -math.inf

    def __call__(self, images, low, high, many=16):
        """Warns if `many` or more images fill only half of the range; a few may just be dark."""
        if not images.size or self._count >= many:
            return
        self._count += len(images)
        self._least = min(self._least, images.min())
        self._most = max(self._most, images.max())
        if self._least == self._most:  # Constant images say nothing about the range.
            self._count = 0
        is_narrow = self._least < self._most <= self._least + 0.5001 * (high - low)
        if self._count >= many and is_narrow:
            warnings.warn(
                f"{self._name} fill no more than half of the range ({low:g}, {high:g}): they lie "
                f"in [{self._least:g}, {self._most:g}]. If that is their full range, "
                f"{self._advice}.",
                stacklevel=4,
            )


class RangeWarning(FilledRange):
    """Warns once if images use only half of the value range, such as floats in [0, 1]."""

    def __init__(self, argument):
        super().__init__(f"`{argument}`", "rescale floats to [-1, 1] and uint8 to [0, 255]")

    def __call__(self, images):
        if images.dtype == np.uint8:
            super().__call__(images, 0, 255)
        else:
            # Floats without negative values are probably in [0, 1], so one image is enough to warn.
            super().__call__(images, -1, 1, many=1 if images.size and images.min() >= 0 else 4)


class Progress:
    """Shows a title and a progress bar for anything that takes longer than ten seconds."""

    patience = 10.0  # The bar appears after this number of seconds.

    def __init__(self, title, total=None, verbose=True):
        self._title, self._verbose, self._is_shown = title, verbose, False
        # The bar measures the time from here, but prints nothing before its first update.
        self._bar, self._started = keras.utils.Progbar(total, unit_name="image"), time.monotonic()

    def __call__(self, done: int, total: int | None = None):
        """Updates the bar with the number of processed images and, optionally, a new total."""
        self._bar.target = total or self._bar.target
        if self._verbose and time.monotonic() - self._started > self.patience:
            if not self._is_shown:
                print(self._title)
                self._is_shown = True
            self._bar.update(done)


def _wrong(name, value, expected, note=""):
    return _error(name, expected, f"={value!r}{note}")


def _error(argument, expected, received):
    return ValueError(f"`{argument}` must {expected}. Received: {argument}{received}")


def _checked(name, value, is_right, expected, optional):
    if not is_right and not (value is None and optional):
        raise _wrong(name, value, f"be {expected}{' or None' if optional else ''}")
    return value


def _integer(value):
    """Returns the value as a Python integer, or `None` if it isn't an integer."""
    if isinstance(value, bool) or "bool" in str(getattr(value, "dtype", "")):
        return None
    try:
        return operator.index(value)
    except Exception:  # Each backend raises a different error for non-integer tensors.
        return None


def _real(value):
    """Returns the value as a Python float, or `None` if it isn't a finite number."""
    dtype = str(getattr(value, "dtype", ""))
    is_number = isinstance(value, numbers.Real) and not isinstance(value, bool)
    is_scalar = getattr(value, "shape", None) == () and ("float" in dtype or "int" in dtype)
    if is_number or is_scalar:
        with contextlib.suppress(Exception):  # `float` fails for huge integers and traced tensors.
            return float(value) if math.isfinite(value) else None
    return None


def _integers(minimum, maximum):
    """Describes the range of allowed integers in words."""
    kind = "a positive integer" if minimum is None else "an integer"
    if maximum is not None:
        end = maximum + 1
        if end > 2**16 and end.bit_count() == 1:  # 2**31 is easier to read than 2147483648.
            end = f"2**{end.bit_length() - 1}"
        return f"{kind} below {end}" if minimum is None else f"{kind} in [{minimum}, {end})"
    return kind if minimum in (None, -math.inf) else f"{kind} of at least {minimum}"
