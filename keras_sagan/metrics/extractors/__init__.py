"""Networks that turn images into features; TF-GAN's Inception alone needs TensorFlow."""
