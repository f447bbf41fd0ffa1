"""One training step of a tiny SAGAN in plain TensorFlow: nothing here is shared with the package.

Takes the weights of the networks in `tiny_networks` by name and trains copies of them with SGD.
"""

import numpy as np
import tensorflow as tf


class PlainSAGAN:
    """The hinge loss, D steps and one G step, and the state that each of them moves."""

    def __init__(self, generator, discriminator, g_rate, d_rate, accumulate=1):
        self.g = {w.path: tf.Variable(w.numpy()) for w in generator.weights}
        self.d = {w.path: tf.Variable(w.numpy()) for w in discriminator.weights}
        self.g_trained = [w.path for w in generator.trainable_weights]
        self.d_trained = [w.path for w in discriminator.trainable_weights]
        self.g_rate, self.d_rate = g_rate, d_rate
        self.momentum, self.epsilon = 0.9, 1e-5
        # Each so many calls a network descends by the mean of its gradients since.
        self.accumulate, self.gradients = accumulate, {id(self.g): [], id(self.d): []}

    def step(self, images, labels, draws):
        """Trains once; `draws` are pairs of latents and labels, one per D step and one for G's.

        Returns the metrics, and the state of D as the G step would have left it, had it kept it.
        """
        metrics = {"d_loss": [], "real_logits": [], "fake_logits": []}
        metrics.update(real_accuracy=[], fake_accuracy=[])
        metrics.update(real_in_margin=[], fake_in_margin=[])
        for latents, fake_labels in draws[:-1]:
            fake_images, _ = self.generate(latents, fake_labels)
            with tf.GradientTape() as tape:
                logits, moved = self.judge(
                    tf.concat([images, fake_images], 0), np.concatenate([labels, fake_labels])
                )
                real, fake = logits[: len(images)], logits[len(images) :]
                loss = tf.reduce_mean(tf.maximum(1 - real, 0)) + tf.reduce_mean(
                    tf.maximum(1 + fake, 0)
                )
            metrics["d_loss"].append(loss)
            metrics["real_logits"].append(real)
            metrics["fake_logits"].append(fake)
            metrics["real_accuracy"].append(real > 0)
            metrics["fake_accuracy"].append(fake <= 0)
            metrics["real_in_margin"].append(real < 1)
            metrics["fake_in_margin"].append(fake > -1)
            self._descend(self.d, self.d_trained, tape, loss, self.d_rate)
            self._assign(self.d, moved)
        latents, fake_labels = draws[-1]
        with tf.GradientTape() as tape:
            fake_images, moved = self.generate(latents, fake_labels)
            logits, moved_in_d = self.judge(fake_images, fake_labels)
            loss = -tf.reduce_mean(logits)
        self._descend(self.g, self.g_trained, tape, loss, self.g_rate)
        self._assign(self.g, moved)
        metrics["g_loss"] = loss
        return {name: float(np.mean(values)) for name, values in metrics.items()}, moved_in_d

    def generate(self, latents, labels):
        """Images, and the new values of the state."""
        w, moved = self.g, {}
        x = latents @ _normalized(w, "start", moved) + w["start/bias"]
        x = tf.reshape(x, (-1, 4, 4, 8))
        mean = tf.reduce_mean(x, (0, 1, 2))
        variance = tf.reduce_mean((x - mean) ** 2, (0, 1, 2))
        count = int(w["norm/num_updates"]) + 1
        moved["norm/num_updates"] = count
        share = max(1 - self.momentum, 1 / min(count, max(10, count / 40)))
        for kind, value in (("mean", mean), ("variance", variance)):
            old = w[f"norm/moving_{kind}"]
            moved[f"norm/moving_{kind}"] = (1 - share) * old + share * value
        x = (x - mean) / tf.sqrt(variance + self.epsilon)
        x = x * tf.gather(w["norm/gamma"], labels)[:, None, None]
        x = x + tf.gather(w["norm/beta"], labels)[:, None, None]
        x = tf.nn.relu(x)
        x = tf.repeat(tf.repeat(x, 2, axis=1), 2, axis=2)
        x = _attend(w, x, moved)
        x = tf.nn.conv2d(x, _normalized(w, "last", moved), 1, "SAME") + w["last/bias"]
        return tf.tanh(x), moved

    def judge(self, images, labels):
        """Logits, and the new values of the state."""
        w, moved = self.d, {}
        x = tf.nn.conv2d(images, _normalized(w, "first", moved), 1, "SAME") + w["first/bias"]
        x = _attend(w, tf.nn.relu(x), moved)
        features = tf.reduce_sum(x, (1, 2))
        logits = features @ _normalized(w, "logits", moved) + w["logits/bias"]
        rows = tf.gather(_normalized(w, "rows", moved, "embeddings"), labels)
        return logits + tf.reduce_sum(features * rows, 1, keepdims=True), moved

    def _descend(self, weights, names, tape, loss, rate):
        variables = [weights[name] for name in names]
        gradients = self.gradients[id(weights)]
        gradients.append([tf.convert_to_tensor(x) for x in tape.gradient(loss, variables)])
        if len(gradients) == self.accumulate:
            for variable, *parts in zip(variables, *gradients):
                variable.assign_sub(rate * sum(parts) / self.accumulate)
            gradients.clear()

    def _assign(self, weights, moved):
        for name, value in moved.items():
            weights[name].assign(value)


def _normalized(weights, layer, moved, kind="kernel"):
    kernel = weights[f"{layer}/{kind}"]
    matrix = tf.reshape(kernel, (-1, kernel.shape[-1]))
    u = weights[f"{layer}/vector_u"][:, None]
    v = tf.stop_gradient(tf.nn.l2_normalize(matrix @ u))
    u = tf.stop_gradient(tf.nn.l2_normalize(tf.transpose(matrix) @ v))
    moved[f"{layer}/vector_u"] = u[:, 0]
    return kernel / (tf.transpose(v) @ matrix @ u)[0, 0]


def _attend(weights, x, moved):
    def conv(x, name):
        kernel = _normalized(weights, f"attention/{name}", moved)
        return tf.nn.conv2d(x, kernel, 1, "SAME")

    batch, height, width, channels = x.shape
    query = tf.reshape(conv(x, "query"), (batch, height * width, -1))
    key, value = (
        tf.reshape(tf.nn.max_pool2d(conv(x, name), 2, 2, "SAME"), (batch, height * width // 4, -1))
        for name in ("key", "value")
    )
    scores = tf.nn.softmax(tf.einsum("bqc,bkc->bqk", query, key))
    attended = tf.reshape(tf.einsum("bqk,bkc->bqc", scores, value), (batch, height, width, -1))
    return x + weights["attention/gamma"] * conv(attended, "output")
