"""SAGAN's networks and its training step written plainly: what the benchmarks compare with.

The weights are those of the product's networks, by the names of their layers, and so are the
latents; nothing else of the product is used. Up-sampling comes before a convolution and pooling
after it, as in the paper.
"""

import keras
import tensorflow as tf

from keras_sagan.training.step import draw_noise


class Network:
    """The plain form of a network of `build_generator` or `build_discriminator`.

    Args:
        network: The Keras model whose weights are used.
        training: Boolean, whether batch norms use the moments of the batch. Then `moved` collects
            the new value of each state, `(variable, value)`.
    """

    def __init__(self, network, training=False):
        self.network, self.training, self.moved = network, training, []

    def layer(self, name):
        """The layer of a name such as `"attention_32/query_conv"`, or `None`."""
        name, _, part = name.partition("/")
        found = {layer.name: layer for layer in self.network.layers}.get(name)
        return getattr(found, part) if part else found

    def weight(self, layer):
        """W / sigma, by one step of the power iteration from the stored u: sigma = v' W u."""
        weight, u = layer._raw_weight().value, layer.vector_u.value
        matrix = tf.reshape(weight, (-1, weight.shape[-1]))
        constant = tf.stop_gradient(matrix)
        v = tf.linalg.l2_normalize(tf.linalg.matvec(constant, u))
        u = tf.linalg.l2_normalize(tf.linalg.matvec(constant, v, transpose_a=True))
        self.moved.append((layer.vector_u, u))
        return weight / tf.tensordot(v, tf.linalg.matvec(matrix, u), 1)

    def conv(self, x, name):
        layer = self.layer(name)
        x = tf.nn.conv2d(x, self.weight(layer), 1, "SAME")
        return tf.nn.bias_add(x, layer.bias.value) if layer.use_bias else x

    def dense(self, x, name):
        layer = self.layer(name)
        return tf.matmul(x, self.weight(layer)) + layer.bias.value

    def norm(self, x, name, labels=None):
        layer = self.layer(name)
        labels = tf.zeros_like(tf.shape(x)[:1]) if labels is None else labels
        gamma, beta = (tf.gather(t.value, labels)[:, None, None] for t in (layer.gamma, layer.beta))
        mean, variance = layer.moving_mean.value, layer.moving_variance.value
        if self.training:
            new, share = tf.nn.moments(x, (0, 1, 2)), share_of_a_batch(layer)
            for moving, value in zip((layer.moving_mean, layer.moving_variance), new):
                self.moved.append((moving, (1.0 - share) * moving.value + share * value))
            self.moved.append((layer.num_updates, layer.num_updates.value + 1))
            mean, variance = new
        return (x - mean) / tf.sqrt(variance + layer.epsilon) * gamma + beta

    def attention(self, x, name):
        def locations(x):
            return tf.reshape(x, (tf.shape(x)[0], -1, x.shape[-1]))

        query = locations(self.conv(x, f"{name}/query_conv"))
        key = locations(tf.nn.max_pool2d(self.conv(x, f"{name}/key_conv"), 2, 2, "VALID"))
        value = locations(tf.nn.max_pool2d(self.conv(x, f"{name}/value_conv"), 2, 2, "VALID"))
        scores = tf.nn.softmax(tf.matmul(query, key, transpose_b=True))
        attended = tf.matmul(scores, value)
        attended = tf.reshape(attended, (-1, *x.shape[1:3], value.shape[-1]))
        return x + self.layer(name).gamma.value * self.conv(attended, f"{name}/output_conv")


def share_of_a_batch(layer):
    """The share of the moving statistics that the next batch of a batch norm gets."""
    count = tf.cast(layer.num_updates.value + 1, tf.float32)
    window = tf.minimum(count, tf.maximum(10.0, count / 40.0))
    return tf.maximum(1.0 - layer.momentum, 1.0 / window)


class Generator(Network):
    def __call__(self, latents, labels):
        """Images in [-1, 1]."""
        x = self.dense(latents, "start")
        x = tf.reshape(x, (-1, 4, 4, x.shape[-1] // 16))
        while x.shape[1] < self.network.output_shape[1]:
            block = f"block_{2 * x.shape[1]}"
            shortcut = self.conv(_up(x), f"{block}_shortcut")
            x = _up(tf.nn.relu(self.norm(x, f"{block}_norm_1", labels)))
            x = self.conv(x, f"{block}_conv_1")
            x = tf.nn.relu(self.norm(x, f"{block}_norm_2", labels))
            x = self.conv(x, f"{block}_conv_2") + shortcut
            if self.layer(f"attention_{x.shape[1]}"):
                x = self.attention(x, f"attention_{x.shape[1]}")
        x = tf.nn.relu(self.norm(x, "last_norm"))
        return tf.tanh(self.conv(x, "last_conv"))


class Discriminator(Network):
    def __call__(self, images, labels):
        """Logits, of shape `(batch,)`."""
        x, number = images, 1
        while self.layer(f"block_{number}_conv_1"):
            block, before = f"block_{number}", x.shape[1]
            is_smaller = self.layer(f"{block}_conv_2").resample == "down"
            shortcut = x
            if number == 1:  # No ReLU on the image; pooled before the convolution.
                shortcut = self.conv(_pool(shortcut), f"{block}_shortcut")
            elif self.layer(f"{block}_shortcut"):
                shortcut = self.conv(shortcut, f"{block}_shortcut")
                shortcut = _pool(shortcut) if is_smaller else shortcut
            x = x if number == 1 else tf.nn.relu(x)
            x = tf.nn.relu(self.conv(x, f"{block}_conv_1"))
            x = self.conv(x, f"{block}_conv_2")
            x = (_pool(x) if is_smaller else x) + shortcut
            if self.layer(f"attention_{x.shape[1]}") and x.shape[1] < before:
                x = self.attention(x, f"attention_{x.shape[1]}")
            number += 1
        features = tf.reduce_sum(tf.nn.relu(x), (1, 2))
        logits = self.dense(features, "logits")[:, 0]
        if labels is None:
            return logits
        rows = tf.gather(self.weight(self.layer("label_embedding")), labels)
        return logits + tf.reduce_sum(features * rows, 1)


def stock_optimizers(model):
    """Keras's own Adam for the generator and the discriminator of a `SAGAN`."""
    rates = (model.ttur[f"{side}_learning_rate"] for side in "gd")
    return [keras.optimizers.Adam(x, model.ttur["beta_1"], model.ttur["beta_2"]) for x in rates]


def training_step(model):
    """One step of a compiled `SAGAN`, written plainly with stock optimisers.

    Real and fake images go through the discriminator one after the other. Latents are the
    product's, so that both can be compared.

    Returns:
        Function `(images, labels) -> (d_loss, g_loss)`, to be wrapped in a `tf.function`.
    """

    def train(network, optimizer, tape, loss, *forms):
        variables = network.trainable_variables
        gradients = tape.gradient(loss, [variable.value for variable in variables])
        optimizer.apply([tf.convert_to_tensor(x) for x in gradients], variables)
        for form in forms:
            for variable, value in form.moved:
                variable.assign(value)

    def step(images, labels):
        images = tf.cast(images, "float32") / 127.5 - 1.0
        d_losses = []
        for index in range(model.d_steps):
            latents, fake_labels = draw_noise(model, index, images.shape[0])
            fake_images = Generator(model.generator, training=True)(latents, fake_labels)
            with tf.GradientTape() as tape:
                form = Discriminator(model.discriminator)
                real = form(images, labels)
                fake = Discriminator(model.discriminator)(fake_images, fake_labels)
                loss = tf.reduce_mean(tf.nn.relu(1 - real)) + tf.reduce_mean(tf.nn.relu(1 + fake))
            train(model.discriminator, model.d_optimizer, tape, loss, form)
            d_losses.append(loss)
        latents, fake_labels = draw_noise(model, model.d_steps, images.shape[0])
        with tf.GradientTape() as tape:
            form = Generator(model.generator, training=True)
            fake = Discriminator(model.discriminator)(form(latents, fake_labels), fake_labels)
            g_loss = -tf.reduce_mean(fake)
        train(model.generator, model.g_optimizer, tape, g_loss, form)
        model.steps.assign_add(1)
        return tf.reduce_mean(d_losses), g_loss

    return step


def _up(x):
    return tf.repeat(tf.repeat(x, 2, axis=1), 2, axis=2)


def _pool(x):
    return tf.nn.avg_pool2d(x, 2, 2, "VALID")
