"""The optional parts of a training step: the augmentation and the penalties of a `SAGAN`.

Each call of `SAGAN.compile` creates a new `Slots` object. If an augmentation or a penalty has a
method `bind(add_variable, loss)`, the object that `bind` returns is used instead. The returned
object has a list `state` of float32 variables, and a method
`moved(real_logits, fake_logits, num_images, mean)`, which returns the new values of the variables
after each update of the discriminator. `mean` is a function that averages over the images of all
replicas, and `num_images` is the number of these images. An optional dictionary `logged` contains
the variables that `fit` adds to its logs.
"""

import keras
from keras import ops

from keras_sagan import training
from keras_sagan.layers.spectral_norm import Scope
from keras_sagan.private_keras import replace_layer


class Slots:
    """The augmentation and the penalties of a `SAGAN`, with the variables that they need."""

    def __init__(self, gan, augmentation, penalties, loss):
        holder = SlotState(name="slots", dtype="float32")

        def bound(function):
            return function.bind(holder.add, loss) if hasattr(function, "bind") else function

        self.augmentation = bound(augmentation)
        penalties = [bound(penalty) for penalty in penalties]
        # Lists of `(number, penalty)`; the number is part of the penalty's seed.
        self.penalties, self.lazy = [], []
        for number, penalty in enumerate(penalties):
            is_lazy = getattr(penalty, "every", 1) > 1
            (self.lazy if is_lazy else self.penalties).append((number, penalty))
        self.moving = [x for x in (self.augmentation, *penalties) if hasattr(x, "moved")]
        replace_layer(gan, "_slot_state", holder if self.moving else None)
        self.due = None  # On JAX, the result of `due_in` for the step that is being traced.

    def augment(self, images, uniform):
        """Returns augmented images, computed in at least float32."""
        return augmented(self.augmentation, images, uniform)

    def move(self, logits, is_updated, batch):
        """Updates the slots' variables, unless the discriminator's update was skipped.

        `batch` is the number of images; each image may have several logits.
        """

        def mean(x):
            return training.backend.mean_over_replicas(ops.mean(x))

        num_images = ops.cast(batch * training.backend.count_replicas(), "float32")
        for function in self.moving:
            for variable, value in zip(function.state, function.moved(*logits, num_images, mean)):
                if is_updated is not True:
                    value = ops.where(is_updated, value, variable.value)
                variable.assign(value)

    def due_in(self, step, d_steps):
        """Returns the lazy penalties that are due in a step.

        The result is a set of pairs: the index of the discriminator's update in the step, and the
        index of the penalty.
        """
        return frozenset(
            (index, number)
            for index in range(d_steps)
            for number, penalty in self.lazy
            if (step * d_steps + index) % penalty.every == 0
        )

    def add_lazy(self, gan, index, updates, value_of, found):
        """Adds the lazy penalties of this update, and their gradients, to `found`.

        If `due` is `None`, the step uses `cond` to skip penalties that aren't due. Each gradient is
        computed inside its `cond`, because XLA on TensorFlow can't differentiate a conditional that
        contains a gradient. `found` is the result of `find_gradients`, `index` is the number of
        this update in the step, `updates` is the number of all previous updates of the
        discriminator, and `value_of(number, penalty)` returns the value of a penalty.
        """
        gradients, states, loss, logits = found
        network, optimizer = gan.discriminator, gan.d_optimizer
        variables = network.trainable_variables
        moved = [(v, x) for v, x in zip(network.variables, states) if x is not None]

        def add(number, penalty, gradients, loss):
            def scaled_value():
                # Like the other penalties, a lazy penalty uses the state that the loss has updated.
                with Scope([x for x in moved if not x[0].trainable]):
                    value = penalty.every * ops.cast(value_of(number, penalty), loss.dtype)
                return optimizer.scale_loss(value / training.backend.count_replicas()), value

            def both():
                others, value = training.backend.gradients(scaled_value, variables)
                return [_sum(*x) for x in zip(variables, gradients, others)], loss + value

            def loss_alone():
                return [_sum(*x) for x in zip(variables, gradients)], loss

            if self.due is None:
                return training.backend.cond(updates % penalty.every == 0, both, loss_alone)
            return both() if (index, number) in self.due else loss_alone()

        for number, penalty in self.lazy:
            gradients, loss = add(number, penalty, gradients, loss)
        return gradients, states, loss, logits


class SlotState(keras.layers.Layer):
    """A layer with the slots' variables, which keep their values if a file doesn't contain them."""

    def add(self, name):
        return self.add_weight(
            name=name,
            shape=(),
            initializer="zeros",
            trainable=False,
            aggregation="only_first_replica",
        )

    def load_own_variables(self, store):
        if store.keys():
            super().load_own_variables(store)


def augmented(augmentation, images, uniform):
    """Returns augmented images, computed in at least float32, or raises if the shape changed."""
    wide = keras.backend.result_type(images.dtype, "float32")
    changed = augmentation(ops.cast(images, wide), uniform)
    before, after = tuple(images.shape), tuple(changed.shape)
    is_same = all(None in pair or pair[0] == pair[1] for pair in zip(before, after))
    if len(before) != len(after) or not is_same:
        raise ValueError(
            "`augmentation` must return images of the shape that it receives. "
            f"Received: images of shape {after} from images of shape {before}"
        )
    return changed


def _sum(variable, *gradients):
    """Adds gradients with respect to a variable; a gradient of `None` counts as zero."""
    known = [x for x in gradients if x is not None]
    return sum(known[1:], known[0]) if known else ops.zeros_like(variable)
