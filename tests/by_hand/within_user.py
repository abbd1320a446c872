"""Losses that rank within users, beside cross-entropy, to be tried: `study.py within_user`.

The contest ranks within users, and no script trains for it. A way is LOSS-WEIGHT-SHARE-UNIT:
cross-entropy plus WEIGHT times the LOSS, where a SHARE of the units keep their rows together in an
epoch's order, so that a batch has pairs to compare; a unit is a `user` or a user's `day`. For a
positive i of a unit, over the rows j of its unit that stand beside it in the batch, with logits s:

    bpr       mean over negatives j of log(1 + exp(s_j - s_i))   (Rendle et al., UAI 2009)
    softmax   -log(exp(s_i) / sum_j exp(s_j))                    (InfoNCE, the unit its context)
    jrc       softmax of s for positives, of -s for negatives    (JRC, Sheng et al., KDD 2023, with
              the two logits of a row tied to s and -s)
    jrc2      softmax of z_1 for positives, of z_0 for negatives (JRC as in the paper: a row has the
              logits of both classes, and s = z_1 - z_0)

Each is summed over its rows and divided by the rows of the batch, as cross-entropy is.
"""

from contextlib import contextmanager
from importlib import import_module

import numpy as np


def unit_codes(columns, unit):
    """A number for each row's user, or for its user and day: int32 (rows,)."""
    user = columns["user"].astype(np.int32)
    return user if unit == "user" else user * (int(columns["day"].max()) + 1) + columns["day"]


def kept_together(codes, share, rng):
    """A random order, int32 (rows,), in which about `share` of the units have rows in one place."""
    n_units = int(codes.max()) + 1
    together = rng.random(n_units)[codes] < share
    key = np.where(together, rng.random(n_units)[codes], rng.random(len(codes)))
    return np.argsort(key, kind="stable").astype(np.int32)


def within_unit(kind, labels, scores, units):
    """The loss of a batch, a number: labels 0/1, units (batch,), scores (batch, 1), of jrc2 of 2.

    Only BPR compares pairs, of at most a quarter of the rows as positives with all others.
    """
    import tensorflow as tf

    n_rows = units.shape[0]
    run = tf.cumsum(tf.cast(tf.concat([[False], units[1:] != units[:-1]], 0), tf.int32))
    first, last = scores[:, 0], scores[:, -1]  # z_0 and z_1, or s and s
    if kind == "bpr":
        is_positive, place = tf.math.top_k(labels, max(n_rows // 4, 1))
        others = (tf.gather(run, place)[:, None] == run[None, :]) & (labels == 0)[None, :]
        others = tf.cast(others, tf.float32)  # (positives, batch)
        each = tf.nn.softplus(last[None, :] - tf.gather(last, place)[:, None])
        mean = tf.reduce_sum(others * each, 1) / tf.maximum(tf.reduce_sum(others, 1), 1)
        return tf.reduce_sum(is_positive * mean) / n_rows

    def log_share(values):
        top = tf.stop_gradient(tf.math.unsorted_segment_max(values, run, n_rows))
        each = tf.exp(values - tf.gather(top, run))
        total = tf.math.unsorted_segment_sum(each, run, n_rows)
        return tf.gather(top + tf.math.log(tf.maximum(total, 1e-30)), run) - values

    found = tf.reduce_mean(labels * log_share(last))
    if kind == "softmax":
        return found
    return found + tf.reduce_mean((1 - labels) * log_share(first if kind == "jrc2" else -first))


def of_both_classes(network):
    """The network with the logits z_0 and z_1 of a task, (batch, 2), whose difference is its logit.

    Their mean is one more linear map of the hidden units that the task's logit is of.
    """
    import keras

    outputs = {}
    for task, logit in network.output.items():
        heads = {layer.name: layer for layer in network.layers if getattr(layer, "units", 0) == 1}
        hidden = heads.get(task, list(heads.values())[-1]).input
        mean = keras.layers.Dense(1, name=f"mean_{task}")(hidden)
        outputs[task] = keras.layers.Concatenate()([mean - logit / 2, mean + logit / 2])
    return keras.Model(network.input, outputs)


def difference(z):
    return z[:, 1:] - z[:, :1]


def recommender(kind, weight, share, unit):
    """A Recommender class that adds the loss and keeps the units' rows together."""
    from common.recommender import Recommender

    import tensorflow as tf

    class WithinUser(Recommender):
        def __init__(self, embedding, network):
            two = kind == "jrc2"
            network = of_both_classes(network) if two else network
            super().__init__(embedding, network, link=difference if two else None)

        def shuffled(self, columns, rng):
            return kept_together(unit_codes(columns, unit), share, rng)

        def looked_up(self, data, columns, tasks, size):
            if tasks:
                columns = columns | {"unit": unit_codes(columns, unit)}
                tasks = [*tasks, "unit"]
            return super().looked_up(data, columns, tasks, size)

        def compute_loss(self, x, y, y_pred, sample_weight=None, training=True):
            labels = {task: y[task] for task in self.tasks}
            logits = {
                task: self.link(y_pred[task]) if self.link else y_pred[task] for task in labels
            }
            loss = super().compute_loss(x, labels, logits, sample_weight, training)
            if "unit" not in y or kind == "none":
                return loss
            parts = [
                within_unit(kind, labels[task], y_pred[task], y["unit"]) for task in self.tasks
            ]
            return loss + weight * tf.add_n(parts)

    return WithinUser


@contextmanager
def trained_by(way, script):
    """Within it, the script, a module, trains in a way."""
    kind, weight, share, unit = way.split("-")
    usual = script.Recommender
    script.Recommender = recommender(kind, float(weight), float(share), unit)
    try:
        yield
    finally:
        script.Recommender = usual


def run(way, script, settings):
    """Run a script with these settings in a way."""
    module = import_module(script)
    with trained_by(way, module):
        module.main(settings)
