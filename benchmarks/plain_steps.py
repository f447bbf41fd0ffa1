"""SAGAN's training step written plainly in JAX and in PyTorch: what the steps of `fit` are
compared with.

The networks are Keras's and the latents are those of the product. No trainer of Keras's, no
metrics and nothing else of `keras_sagan.training` is used. This file imports no TensorFlow.
"""

import time

import common
import keras

from keras_sagan.training.step import draw_noise


class Turns(keras.callbacks.Callback):
    """Times each step of `fit`, and has other functions take a step after it.

    A step of `fit` is timed with all that Keras does between two steps: its loop, the next batch
    and the metrics.

    Args:
        wait: Function that returns when the devices are done.
        others: Dictionary from name to a function that trains once, or a `common.Peer`.
        after: Function of a dictionary, from the names and `"fit"` to the seconds of this turn.
    """

    def __init__(self, wait, others, after):
        super().__init__()
        self.wait, self.others, self.after = wait, others, after

    def on_train_begin(self, logs=None):
        self._start = time.perf_counter()

    def on_train_batch_end(self, batch, logs=None):
        self.wait()
        seconds = {"fit": time.perf_counter() - self._start}
        for name, function in self.others.items():
            start = time.perf_counter()
            value = function()
            is_peer = isinstance(function, common.Peer)
            seconds[name] = value if is_peer else time.perf_counter() - start
        self.after(seconds)
        self._start = time.perf_counter()


def repeated(batch):
    """Yields the same batch for ever."""
    while True:
        yield batch


def first_losses(model, batch, steps=2):
    """Trains with `fit`, and returns the losses `(d_loss, g_loss)` of each of its steps."""
    history = model.fit(repeated(batch), epochs=steps, steps_per_epoch=1, verbose=0).history
    return list(zip(history["d_loss"], history["g_loss"]))


def largest_difference(losses, others):
    """The largest difference between two lists of losses, relative to 1 or to the loss."""
    pairs = [pair for both in zip(losses, others) for pair in zip(*both)]
    return max(float(abs(x - y) / max(1.0, abs(x))) for x, y in pairs)


def waiter(model):
    """Returns a function that waits until the devices have trained a model."""
    backend = keras.backend.backend()
    if backend == "jax":
        import jax

        return lambda: jax.block_until_ready([v.value for v in model.variables])
    if backend == "torch":
        import torch

        return torch.cuda.synchronize if torch.cuda.is_available() else lambda: None
    return lambda: None  # The metrics, which Keras reads, are the last of a step.


def plain_step(model, batch):
    """Returns a function that trains once with a batch and returns both losses, or `None` for
    TensorFlow, which has its plain form in textbook.py.

    JAX's trains copies of the model's weights; PyTorch's trains the model's own networks.
    """
    make = {"jax": jax_step, "torch": torch_step}.get(keras.backend.backend())
    return make and make(model, batch)


def jax_step(model, batch):
    """The step in JAX: pure functions, one compiled program, with the state donated."""
    import jax
    from jax import numpy as jnp

    networks = {"g": model.generator, "d": model.discriminator}
    adams = {name: _adam(model, name, network) for name, network in networks.items()}

    def values(variables):
        return [jnp.copy(variable.value) for variable in variables]

    def call(name, weights, state, *inputs):
        outputs, state = networks[name].stateless_call(weights, state, [*inputs], training=True)
        return outputs.astype("float32"), state

    def d_loss(weights, state, real, labels, fake, fake_labels):
        images, labels = jnp.concatenate([real, fake]), jnp.concatenate([labels, fake_labels])
        logits, state = call("d", weights, state, images, labels)
        real, fake = jnp.split(logits, 2)
        return jax.nn.relu(1 - real).mean() + jax.nn.relu(1 + fake).mean(), state

    def g_loss(weights, state, latents, labels, judge):
        images, state = call("g", weights, state, latents, labels)
        return -call("d", *judge, images, labels)[0].mean(), state

    def update(state, name, loss, *inputs):
        weights, others, slots = state[name]
        found, gradients = jax.value_and_grad(loss, has_aux=True)(weights, others, *inputs)
        weights, slots = adams[name].stateless_apply(slots, gradients, weights)
        return {**state, name: (weights, found[1], slots)}, found[0]

    def average(old, new):
        share = 1 - model.ema_momentum
        return old + share * (new - old) if jnp.issubdtype(new.dtype, jnp.floating) else new

    @jax.jit(donate_argnums=0)
    def step(state, images, labels):
        real, losses = images.astype("float32") / 127.5 - 1, []

        def noise(index):
            return draw_noise(model, index, len(images), state["steps"])

        for index in range(model.d_steps):
            latents, fake_labels = noise(index)
            fake, _ = call("g", *state["g"][:2], latents, fake_labels)
            state, loss = update(state, "d", d_loss, real, labels, fake, fake_labels)
            losses.append(loss)
        state, loss = update(state, "g", g_loss, *noise(model.d_steps), state["d"][:2])
        mean = state["average"] and jax.tree.map(average, state["average"], list(state["g"][:2]))
        state = {**state, "average": mean, "steps": state["steps"] + 1}
        return state, (sum(losses) / len(losses), loss)

    state = {
        name: tuple(
            map(values, (x.trainable_variables, x.non_trainable_variables, adams[name].variables))
        )
        for name, x in networks.items()
    }
    has_average = model.ema_momentum is not None
    state["average"] = jax.tree.map(jnp.copy, list(state["g"][:2])) if has_average else None
    state["steps"] = jnp.zeros((), "int32")

    def train(is_awaited=True):
        nonlocal state
        state, losses = step(state, *batch)
        return jax.block_until_ready((state, losses))[1] if is_awaited else losses

    return train


def torch_step(model, batch):
    """The step as a loop in PyTorch, with its own Adam."""
    import torch

    networks = {"g": model.generator, "d": model.discriminator}
    weights = {name: [v.value for v in x.trainable_variables] for name, x in networks.items()}
    adams = {
        name: torch.optim.Adam(
            weights[name],
            model.ttur[f"{name}_learning_rate"],
            (model.ttur["beta_1"], model.ttur["beta_2"]),
        )
        for name in networks
    }
    counts = dict.fromkeys(networks, 0)
    generated = [v.value for v in model.generator.variables]
    has_average = model.ema_momentum is not None
    averages = [x.detach().clone() for x in generated] if has_average else []
    device, steps, wait = generated[0].device, 0, waiter(model)

    def judge(images, labels):
        logits = model.discriminator([images, labels], training=True)
        return logits.float().reshape(-1)

    def update(name, loss):
        (group,), counts[name] = adams[name].param_groups, counts[name] + 1
        # Keras adds its epsilon before the bias correction.
        group["eps"] = 1e-7 / (1 - group["betas"][1] ** counts[name]) ** 0.5
        adams[name].zero_grad()
        loss.backward(inputs=weights[name])
        adams[name].step()
        return loss.detach()

    def train(is_awaited=True):
        nonlocal steps
        images, labels = (torch.as_tensor(x).to(device) for x in batch)
        real, count, losses = images.float() / 127.5 - 1, len(images), []
        for index in range(model.d_steps):
            latents, fake_labels = draw_noise(model, index, count, steps)
            # A network's state (`vector_u`, statistics) moves in its own update only.
            with torch.no_grad(), keras.StatelessScope():
                fake = model.generator([latents, fake_labels], training=True)
            both = torch.cat([real, fake.float()]), torch.cat([labels, fake_labels])
            real_logits, fake_logits = judge(*both).split(count)
            loss = (1 - real_logits).relu().mean() + (1 + fake_logits).relu().mean()
            losses.append(update("d", loss))
        latents, fake_labels = draw_noise(model, model.d_steps, count, steps)
        fake = model.generator([latents, fake_labels], training=True)
        with keras.StatelessScope():
            loss = update("g", -judge(fake, fake_labels).mean())
        with torch.no_grad():
            for mean, value in zip(averages, generated):
                if value.is_floating_point():
                    mean.lerp_(value, 1 - model.ema_momentum)
                else:
                    mean.copy_(value)
        steps += 1
        if is_awaited:
            wait()
        return sum(losses) / len(losses), loss

    return train


def _adam(model, name, network):
    rate, betas = model.ttur[f"{name}_learning_rate"], (model.ttur["beta_1"], model.ttur["beta_2"])
    optimizer = keras.optimizers.Adam(rate, *betas)
    optimizer.build(network.trainable_variables)
    return optimizer
