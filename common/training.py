"""The training run: settings become the command line, then load, train epoch by epoch, score, print.

A script gives its settings, a builder and, if it wants, a loss and a learning-rate schedule; no model is known here.
"""
import argparse
import sys
import time
from dataclasses import dataclass, field, fields, replace
from pathlib import Path

import common.quiet  # noqa: F401 -- first
import keras
import numpy as np
import tensorflow as tf

from common.optimizer import RowAdam
from common.pickles import InputError, load
from common.scoring import score, weighted, yardsticks

STEPS_PER_CALL = 50  # steps between two returns from the graph to Python
SCORING_BATCH = 16384


def setting(default, help):
    """A field of a settings class: its default and the line of help of its flag."""
    return field(default=default, metadata={"help": help})


@dataclass
class RunSettings:
    """What every script's command line has besides its own hyperparameters."""

    user_data: str = setting("user_data", "folder of the pickles that get_data.py wrote")
    target: str = setting("read_comment", "task whose validation AUC is the last line")
    features: str = setting("", "features to use, separated by commas")
    seed: int = setting(0, "seed of the first run; the next runs take the next seeds")
    runs: int = setting(1, "runs, whose mean and standard deviation are reported")


def parse(settings_class, description, argv=None):
    """The settings that the command line asks for: a flag a field, of the same name, with - for _."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    for one in fields(settings_class):
        shown = "all" if one.default == "" else one.default
        parser.add_argument(
            "--" + one.name.replace("_", "-"), type=one.type, default=one.default, help=f"{one.metadata['help']} (default: {shown})"
        )
    return settings_class(**vars(parser.parse_args(argv)))


def numbers(text):
    """The whole numbers of "64,64"; none for ""."""
    return [int(word) for word in str(text).split(",") if word]


def cross_entropy(settings):
    """The loss of a row, from its label and logit: -log p of its own class, log(1 + exp(logit)) - label logit."""
    return lambda label, logit: keras.ops.softplus((1 - 2 * label) * logit)


def constant_rate(settings):
    """The schedule that does not anneal: the same learning rate after any number of epochs."""
    return lambda epochs: settings.learning_rate


def batches(n_rows, batch_size, rng):
    """Row numbers (steps, batch) of an epoch: every row in a new order; the first rows come again to fill the last batch up."""
    batch_size = min(batch_size, n_rows)
    order = rng.permutation(n_rows).astype(np.int32)
    return np.concatenate([order, order[: -n_rows % batch_size]]).reshape(-1, batch_size)


class Recommender:
    """An embedding and a network being trained: the graphs of a step and of a prediction.

    The lookup runs as plain TensorFlow, since it is sparse; the network, its loss, gradients and Adam are compiled by XLA.
    """

    def __init__(self, embed, network, tasks, loss, columns, l2=0.0):
        self.embed, self.network, self.tasks, self.loss, self.columns = embed, network, tasks, loss, columns
        self.weights = network.trainable_variables
        self.adam = keras.optimizers.Adam()
        self.adam.build(self.weights)
        self.row_adam = RowAdam(embed.table.value, l2)
        self.network_step = tf.function(self.network_step, jit_compile=True)  # of each instance, so that no run retraces another's
        self.network_logits = tf.function(self.network_logits, jit_compile=True)
        self.train = tf.function(self.train, reduce_retracing=True)
        self.logits_of = tf.function(self.logits_of, reduce_retracing=True)

    def network_step(self, vectors, dense, labels):
        """One step of Adam on the network: the loss, and its gradient with respect to the vectors."""
        with tf.GradientTape() as tape:
            tape.watch(vectors)
            logits = self.network([vectors, dense], training=True)
            loss = sum(tf.reduce_mean(self.loss(labels[task], logits[task][:, 0])) for task in self.tasks)
        to_vectors, *gradients = tape.gradient(loss, [vectors, *self.weights])
        self.adam.apply(gradients)
        return loss, to_vectors

    def train(self, data, order, rates):
        """Steps on data {column: (rows,)} with row numbers order (steps, batch) and learning rates (steps,): their mean loss."""
        total = 0.0
        for step in tf.range(tf.shape(order)[0]):
            batch = {name: tf.gather(column, order[step]) for name, column in data.items()}
            labels = {task: tf.cast(batch[task], tf.float32) for task in self.tasks}
            with tf.GradientTape() as tape:
                vectors, dense = self.embed({name: batch[name] for name in self.columns})
            self.adam.learning_rate.assign(rates[step])
            loss, gradient = self.network_step(vectors, dense, labels)
            if self.embed.spec["n_ids"]:  # with dense features alone there is no table to train
                self.row_adam.apply(tape.gradient(vectors, self.row_adam.table, output_gradients=gradient), rates[step])
            total += loss
        return total / tf.cast(tf.shape(order)[0], tf.float32)

    def network_logits(self, vectors, dense):
        return self.network([vectors, dense], training=False)

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


def fit(data, tasks, settings, build, loss, schedule):
    """Train one model with `settings.seed`; returns {task: validation logits}. Prints a line an epoch."""
    keras.utils.set_random_seed(settings.seed)
    keras.backend.clear_session()
    embed, network = build(data, tasks, settings)
    columns = embed.spec["inputs"]
    model = Recommender(embed, network, tasks, loss, columns, settings.embedding_l2)
    train = {name: tf.constant(data.train[name]) for name in (*columns, *tasks)}
    rng = np.random.default_rng(settings.seed)
    for epoch in range(settings.epochs):
        started, order = time.perf_counter(), batches(len(train[settings.target]), settings.batch_size, rng)
        steps = len(order)
        rates = np.array([schedule(epoch + step / steps) for step in range(steps)], np.float32)
        losses = []
        for first in range(0, steps, STEPS_PER_CALL):
            part = slice(first, first + STEPS_PER_CALL)
            losses.append(float(model.train(train, tf.constant(order[part]), tf.constant(rates[part]))) * len(rates[part]))
            if not np.isfinite(losses[-1]):
                raise InputError(f"the loss is {losses[-1]} by step {first + len(rates[part])} of epoch {epoch + 1}: lower --learning-rate.")
        speed = order.size / (time.perf_counter() - started)
        logits = model.predict(data.valid)
        own = score(data.valid[settings.target], logits[settings.target], data.valid.get(data.meta["group"]))
        print(f"epoch {epoch + 1}/{settings.epochs}  loss {sum(losses) / steps:.5f}  {settings.target} "
              + "  ".join(f"{name} {own[name]:.4f}" for name in ("auc", "uauc") if name in own) + f"  {speed:,.0f} rows/s", flush=True)
    return logits


def run(build, settings, multi_task=True, loss=cross_entropy, schedule=constant_rate):
    """Train and score one model `settings.runs` times on the folder of pickles that the settings name.

    build(data, tasks, settings) -> (FeatureEmbedding, keras.Model from its symbols to {task: logits (batch, 1)}).
    loss(settings) -> function (label (batch,), logit (batch,)) -> (batch,). schedule(settings) -> function (epochs done, a
    float) -> learning rate. Prints the tables and returns the mean validation AUC of the target.
    """
    data = load(settings.user_data)
    tasks = list(data.meta["tasks"]) if multi_task else [settings.target]
    known = list(data.meta["tasks"])
    if settings.target not in known:
        raise InputError(f"--target {settings.target} is no task of {settings.user_data}: it has {', '.join(known)}.")
    for name in ("epochs", "batch_size", "runs"):
        if getattr(settings, name) < 1:
            raise InputError(f"--{name.replace('_', '-')} must be at least 1, it is {getattr(settings, name)}.")
    wanted = settings.features.split(",") if settings.features else list(data.meta["features"])
    absent = [name for name in wanted if name not in data.meta["features"]]
    settings.features = ",".join(name for name in wanted if name not in absent)
    if not settings.features:
        raise InputError(f"--features: {settings.user_data} has none of them: it has {', '.join(data.meta['features'])}.")
    print(f"{data.meta['name']}{' (SYNTHETIC)' if data.meta['synthetic'] else ''}: {len(data.train[known[0]]):,} training rows, "
          f"{len(data.valid[known[0]]):,} validation rows (day {data.meta['valid_day']})"
          + (f"; without {', '.join(absent)}, which this data lacks" if absent else ""), flush=True)
    groups = data.valid.get(data.meta["group"])
    scores = []
    for seed in range(settings.seed, settings.seed + settings.runs):
        logits = fit(data, tasks, replace(settings, seed=seed), build, loss(settings), schedule(settings))
        scores.append({task: score(data.valid[task], logits[task], groups) for task in tasks})
    name = type(settings).__module__ if type(settings).__module__ != "__main__" else Path(sys.argv[0]).stem
    marks = {who: {task: score(data.valid[task], of[task], groups) for task in tasks} for who, of in yardsticks(data, tasks).items()}
    print_table({name: scores, **{who: [one] for who, one in marks.items()}}, data, tasks)
    found = [one[settings.target]["auc"] for one in scores]
    runs = f" ({len(found)} runs)" if len(found) > 1 else ""
    print(f"{settings.target} validation AUC: {mean_and_spread(found)}{runs}")
    return float(np.mean(found))


def print_table(models, data, tasks):
    """Print {model: [scores of a run]}, a block for each score: means over the runs, and standard deviations of several."""
    label = " (SYNTHETIC)" if data.meta["synthetic"] else ""
    weights = {task: data.meta["tasks"][task] for task in tasks}
    print(f"\n{'validation' + label:28}" + "".join(f"{task:>18}" for task in tasks))
    print(f"{'positive rate':28}" + "".join(f"{data.valid[task].mean():18.4%}" for task in tasks))
    for key, what in (("auc", "AUC"), ("uauc", "uAUC"), ("logloss", "log loss")):
        for model, runs in models.items():
            if key in runs[0][tasks[0]]:
                cells = [mean_and_spread([one[task][key] for one in runs]) for task in tasks]
                totals = [weighted({task: one[task][key] for task in tasks}, weights) for one in runs]
                total = f"   weighted {mean_and_spread(totals)}" if key == "uauc" and len(tasks) > 1 else ""
                print(f"{what + ' ' + model:28}" + "".join(f"{cell:>18}" for cell in cells) + total)
    print()


def mean_and_spread(values):
    """ "0.9260", of several "0.9260 +- 0.0004" (sample standard deviation), "n/a" where there is no such score."""
    if np.isnan(values).any():
        return "n/a"
    return f"{np.mean(values):.4f}" + (f" +- {np.std(values, ddof=1):.4f}" if len(values) > 1 else "")


def main(build, settings_class, description, argv=None, **options):
    """The command line of a script: returns what `run` returns; a user's mistake is one sentence on stderr and exit code 2."""
    try:
        return run(build, parse(settings_class, description, argv), **options)
    except InputError as error:
        print(error, file=sys.stderr)
        sys.exit(2)
