"""Dropout whose random numbers cost next to nothing on a CPU."""
import keras
import tensorflow as tf


@keras.saving.register_keras_serializable("multitask")
class Dropout(keras.layers.Dropout):
    """keras.layers.Dropout whose random bits are a hash of the step's seed and of the place in the tensor.

    Keras's generator takes longer than all the matrices under XLA. The rate is rounded to 1/65536.
    """

    def call(self, inputs, training=False):
        if not training or not self.rate:
            return inputs
        n = tf.size(inputs)
        device = tf.cast(tf.distribute.get_replica_context().replica_id_in_sync_group, tf.uint32)  # 0, unless there are several
        first, second = tf.unstack(tf.cast(self.seed_generator.next(), tf.uint32))
        bits = scrambled(tf.cast(tf.range((n + 1) // 2), tf.uint32) ^ scrambled(first ^ scrambled(second ^ scrambled(device))))
        halves = [tf.cast(part, tf.uint16) for part in (bits & 0xFFFF, tf.bitwise.right_shift(bits, 16))]
        bits = tf.concat(halves, axis=0)[:n]  # where XLA joins tensors it keeps them, and does not hash again in each loop that reads them
        return tf.where(tf.reshape(bits, tf.shape(inputs)) >= round(self.rate * 65536), inputs / (1 - self.rate), 0.0)


def scrambled(bits):
    """Each bit of the result depends on all of the argument's: the finalizer of MurmurHash3 (Appleby), uint32 to uint32."""
    for shift, factor in ((16, 0x85EBCA6B), (13, 0xC2B2AE35)):
        bits = (bits ^ tf.bitwise.right_shift(bits, shift)) * factor
    return bits ^ tf.bitwise.right_shift(bits, 16)
