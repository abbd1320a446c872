"""Dropout whose random numbers XLA makes quickly on a CPU."""
import keras
import tensorflow as tf


@keras.saving.register_keras_serializable("multitask")
class Dropout(keras.layers.Dropout):
    """keras.layers.Dropout with the Threefry generator: under XLA the default one takes longer than all the matrices."""

    def call(self, inputs, training=False):
        if not training or not self.rate:
            return inputs
        return tf.nn.experimental.stateless_dropout(inputs, self.rate, self.seed_generator.next(), rng_alg="threefry")
