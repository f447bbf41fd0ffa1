"""Networks that turn images into features; only TF-GAN's Inception needs TensorFlow."""
