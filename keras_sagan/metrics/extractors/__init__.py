"""Networks that turn images into features; only TF-GAN's Inception needs TensorFlow.

Scores take any of them. `extractor_for` of `keras_sagan.sources` chooses the one of a run.
"""
