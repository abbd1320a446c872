"""Dropout that costs less than the matrices."""

import common.backend  # noqa: F401

import keras
import tensorflow as tf


@keras.saving.register_keras_serializable("multitask")
class Dropout(keras.layers.Dropout):
    """keras.layers.Dropout whose random bits are a hash of the step's seed and of the place.

    Keras's generator takes longer than all the matrices under XLA. The rate is rounded to 1/65536.
    """

    def call(self, inputs, training=False):
        if not training or not self.rate:
            return inputs
        n = tf.size(inputs)
        first, second = tf.unstack(tf.cast(self.seed_generator.next(), tf.uint32))
        places = tf.cast(tf.range((n + 1) // 2), tf.uint32)
        bits = scrambled(places ^ scrambled(first ^ scrambled(second)))
        low = tf.cast(bits & 0xFFFF, tf.uint16)
        high = tf.cast(tf.bitwise.right_shift(bits, 16), tf.uint16)
        # XLA keeps tensors that it joins, and does not hash again in each loop that reads them
        bits = tf.reshape(tf.concat([low, high], axis=0)[:n], tf.shape(inputs))
        return tf.where(bits >= min(round(self.rate * 65536), 65535), inputs / (1 - self.rate), 0.0)


def scrambled(bits):
    """The finalizer of MurmurHash3 (Appleby), uint32: each bit depends on all of the argument's."""
    for shift, factor in ((16, 0x85EBCA6B), (13, 0xC2B2AE35)):
        bits = (bits ^ tf.bitwise.right_shift(bits, shift)) * factor
    return bits ^ tf.bitwise.right_shift(bits, 16)
