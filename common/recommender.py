"""A model in training: the graphs of a step and of a prediction, on one device or on several GPUs of a machine."""
import common.quiet  # noqa: F401 -- first
import keras
import numpy as np
import tensorflow as tf

from common.optimizer import RowAdam

SCORING_BATCH = 16384
SHORTEST = 512  # what varies in length is filled up to a multiple of this at the least


class Recommender:
    """An embedding and a network being trained: the graphs of a step and of a prediction.

    A step is one XLA program: embeddings, network, loss, gradients, both Adams. Beside it runs, in plain TensorFlow, what varies
    in length: which rows of the embedding table the next batch looks up, and which of them are the same.
    """

    def __init__(self, embed, network, loss, task_weights, l2=0.0, link=lambda logit: logit):
        """loss: function (label, logit) -> loss of a row; task_weights: {task: its weight in the sum}; l2: of the embeddings.

        link: function from what the network gives to the logit of a probability.
        """
        self.embed, self.network, self.loss, self.link, self.columns = embed, network, loss, link, embed.spec["inputs"]
        self.task_weights, self.tasks = task_weights, list(task_weights)
        self.weights = network.trainable_variables
        self.adam = keras.optimizers.Adam()
        self.adam.build(self.weights)
        self.row_adam = RowAdam(embed.table.value, l2)
        self.step = tf.function(self.step, jit_compile=True)  # of each instance, so that no run retraces another's
        self.network_logits = tf.function(self.network_logits, jit_compile=True)
        self.train = tf.function(self.train, reduce_retracing=True)
        self.logits_of = tf.function(self.logits_of, reduce_retracing=True)

    def look_up(self, data, rows):
        """What a step on these rows needs of the data: labels {task: (batch,)}, what the embedding looks up, ids (rows,) and place.

        ids: each row of the embedding table that is touched, once; place: where in `ids` each occurrence of one stands. What
        varies in length is filled up to a multiple of the batch, so that few shapes are compiled: with rows beyond the table,
        where XLA writes nothing and reads its last row, and with the owner and the place -1, to which nothing is added.
        """
        with tf.device("CPU:0"):  # where the columns of all rows are
            batch = {name: tf.gather(column, rows) for name, column in data.items()}
        found, beyond = self.embed.look_up({name: batch[name] for name in self.columns}), self.embed.spec["n_rows"]
        ids, place = tf.unique(found["places"])
        more_items, more_ids = (-tf.size(one) % tf.maximum(tf.size(rows), SHORTEST) for one in (found["owners"], ids))

        def filled(values, more, filling):
            return tf.pad(values, [[0, more]], constant_values=filling)

        found |= {"places": filled(found["places"], more_items, beyond), "owners": filled(found["owners"], more_items, -1)}
        return {task: batch[task] for task in self.tasks}, found, filled(ids, more_ids, beyond), filled(place, more_items, -1)

    def gradients(self, labels, found):
        """The mean loss of a batch; its gradients with respect to the rows of the table that were looked up, and to the weights."""
        labels = {task: tf.cast(label, tf.float32) for task, label in labels.items()}
        embedded = tf.gather(self.row_adam.table, found["places"])
        with tf.GradientTape() as tape:
            tape.watch(embedded)
            logits = self.network(list(self.embed.assemble(embedded, found)), training=True)
            loss = sum(w * tf.reduce_mean(self.loss(labels[task], logits[task][:, 0])) for task, w in self.task_weights.items())
        to_rows, *to_weights = tape.gradient(loss, [embedded, *self.weights])
        return loss, to_rows, to_weights

    def step(self, labels, found, ids, place, learning_rate):
        """One step of Adam on the network and on the rows of the table that were looked up: the loss."""
        loss, to_rows, to_weights = self.gradients(labels, found)
        self.adam.learning_rate.assign(learning_rate)
        self.adam.apply(to_weights)
        if self.embed.spec["n_rows"]:  # with dense features alone there is no table to train
            self.row_adam.apply(ids, place, to_rows, learning_rate)
        return loss

    def train(self, data, order, rates):
        """Steps on data {column: (rows,)} with row numbers order (steps, batch) and learning rates (steps,): their mean loss."""
        total, last, ready = 0.0, tf.shape(order)[0] - 1, self.look_up(data, order[0])
        any_length = tf.nest.map_structure(lambda tensor: tf.TensorShape([None, *tensor.shape[1:]]), ready)
        for step in tf.range(last + 1):
            tf.autograph.experimental.set_loop_options(shape_invariants=[(ready, any_length)])
            following = self.look_up(data, order[tf.minimum(step + 1, last)])  # on one core, while the other is still at this step
            total += self.step(*ready, rates[step])
            ready = following
        return total / tf.cast(last + 1, tf.float32)

    def network_logits(self, vectors, dense):
        return {task: self.link(logit) for task, logit in self.network([vectors, dense], training=False).items()}

    def logits_of(self, batch):
        return self.network_logits(*self.embed(batch))

    def predict(self, rows):
        """{task: float32 logits (rows,)} of interactions {column: (rows,)}."""
        n = len(rows[self.columns[0]])
        size = min(n, SCORING_BATCH)
        out = {task: np.empty(n, np.float32) for task in self.tasks}
        for start in range(0, n, size):
            start = min(start, n - size)  # the last batch overlaps: one shape, compiled once
            logits = self.logits_of({name: rows[name][start : start + size] for name in self.columns})
            for task in self.tasks:
                out[task][start : start + size] = logits[task][:, 0]
        return out

    def renew_embeddings(self, seed):
        """Draw the embedding table anew and forget its moments; the network stays as it is.

        What lets a network overfit from its second epoch on is the embeddings of rare ids, which know the rows that they
        have seen by heart, and a network that learned to believe them (Zhang et al., CIKM 2022). With new embeddings
        each epoch sees its rows as if for the first time (multi-epoch learning, MEDA: Fan et al., 2023).
        """
        table, row_adam = self.row_adam.table, self.row_adam
        table.assign(self.embed.initializer(seed)(table.shape))
        for moments in (row_adam.mean, row_adam.square, row_adam.steps):
            moments.assign(tf.zeros_like(moments))

    def variables(self):
        """All that a step changes, random states included."""
        row_adam = self.row_adam
        return [row_adam.table, row_adam.mean, row_adam.square, row_adam.steps, *self.network.variables, *self.adam.variables]


class MirroredRecommender(Recommender):
    """A Recommender made in the scope of a tf.distribute.MirroredStrategy: each device has all weights and takes its share of a batch.

    A step is the same as on one device, but for the order in which numbers are added and for what dropout leaves out.
    """

    def __init__(self, *args):
        super().__init__(*args)
        self.gradients, self.strategy = tf.function(self.gradients, jit_compile=True), tf.distribute.get_strategy()

    def train(self, data, order, rates):
        total = 0.0
        for step in tf.range(tf.shape(order)[0]):
            self.adam.learning_rate.assign(rates[step])
            total += self.strategy.reduce("sum", self.strategy.run(self.share, args=(data, order[step], rates[step])), axis=None)
        return total / tf.cast(tf.shape(order)[0], tf.float32)

    def share(self, data, rows, learning_rate):
        """One device's part of a step: what its rows add to the loss."""
        here = tf.distribute.get_replica_context()
        mine = rows[here.replica_id_in_sync_group :: here.num_replicas_in_sync]
        labels, found, _, _ = self.look_up(data, mine)
        loss, to_rows, to_weights = self.gradients(labels, found)
        part = tf.cast(tf.size(mine), tf.float32) / tf.cast(tf.size(rows), tf.float32)
        self.adam.apply([part * gradient for gradient in to_weights])  # Keras adds up those of all devices
        if self.embed.spec["n_rows"]:
            real = tf.where(found["places"] < self.embed.spec["n_rows"])[:, 0]
            here.merge_call(self.update_rows, args=(tf.gather(found["places"], real), tf.gather(part * to_rows, real), learning_rate))
        return part * loss

    def update_rows(self, strategy, places, to_rows, learning_rate):
        """Adam on the rows that any device looked up, on all devices' copies."""
        adam = self.row_adam
        places, to_rows = (tf.concat(strategy.experimental_local_results(each), axis=0) for each in (places, to_rows))
        strategy.extended.update(
            adam.table, adam.update, args=(adam.mean, adam.square, adam.steps, *tf.unique(places), to_rows, learning_rate)
        )
