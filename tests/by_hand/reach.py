"""Seconds from the CSVs to a score: `peers.py reach SOURCE`.

get_data.py encodes the CSVs; then this project's MMOE, DeepCTR's or LightGBM trains, and every
CHECKED rows (LightGBM: every CHECKED_TREES trees of each task) the validation day is scored, until
the first task's AUC and the weighted uAUC are both reached, or until LIMIT. All counts, from the
start of the first process on, but the time that scoring takes.
"""

import tempfile
import time
from importlib import import_module

from common.contract import load
from common.scores import score_tasks, weighted

import numpy as np
import peers
from benchmark import run
from runs import apart

CHECKED = 262_144  # rows
CHECKED_TREES = 10
EPOCHS = 3  # at most
LIMIT = 600  # seconds without scoring; at the first look after them a way is given up


class Watch:
    """A clock that stands still while the validation day is scored.

    began: time.time() at which it began, in this process or another. goals: the AUC of the first
    task and the weighted uAUC that are to be reached. found: what they were at the last look.
    """

    def __init__(self, data, goals, began):
        self.data = data
        self.goals = goals
        self.began = began
        self.still = 0.0  # seconds
        self.found = (0.0, 0.0)

    def seconds(self):
        """Those that have passed, but for the scoring."""
        return time.time() - self.began - self.still

    def is_late(self):
        """Whether they are more than LIMIT."""
        return self.seconds() > LIMIT

    def reached(self, logits_of):
        """Whether the goals are, by the {task: logits} that a function gives."""
        since = time.perf_counter()
        valid = self.data.valid
        scores = score_tasks(valid, logits_of(), self.data.groups_of(valid))
        uauc = weighted({task: row["uauc"] for task, row in scores.items()}, self.data.tasks)
        self.found = (scores[self.data.first_task]["auc"], uauc)
        self.still += time.perf_counter() - since
        return all(np.array(self.found) >= self.goals)

    def result(self, is_reached):
        """What `benchmark.measure` takes: the seconds, inf where the goals were not reached."""
        seconds = self.seconds() if is_reached else np.inf
        return {"seconds": seconds, "AUC": self.found[0], "weighted uAUC": self.found[1]}


def until(base, watch, score, size):
    """A callback of `base`, Keras's or tf_keras's, that ends `fit` where the goals are reached.

    It looks every CHECKED rows; `score` gives {task: logits} of the validation rows.
    """

    class Until(base):
        seen = 0
        is_reached = False

        def on_train_batch_end(self, batch, logs=None):
            before, self.seen = self.seen, (batch + 1) * size
            if self.seen // CHECKED > before // CHECKED:
                self.look()

        def on_epoch_end(self, epoch, logs=None):
            self.seen = 0
            self.look()

        def look(self):
            if not self.model.stop_training:
                self.is_reached = watch.reached(score)
                self.model.stop_training = self.is_reached or watch.is_late()

    return Until()


def ours(folder, goals, began, seed):
    """This project's MMOE, by its defaults but for the number of epochs."""
    from common.callbacks import RenewedEmbeddings

    import keras

    mmoe = import_module("mmoe")
    data = load(folder)
    watch = Watch(data, goals, began)
    settings = mmoe.Settings()
    model = mmoe.compiled_model(data, list(data.tasks), settings)
    model.initialize(seed)
    size = settings.batch_size
    ending = until(keras.callbacks.Callback, watch, lambda: model.logits(data.valid), size)
    batches = model.batches(data.train, size, seed)
    callbacks = [RenewedEmbeddings(seed, keep=data.has_few_ids), ending]
    model.fit(batches, epochs=EPOCHS, callbacks=callbacks, shuffle=False, verbose=0)
    return watch.result(ending.is_reached)


def deepctr(folder, goals, began, seed, chosen):
    """DeepCTR's MMOE with these settings."""
    import tensorflow as tf

    data = load(folder)
    tasks = list(data.tasks)
    watch = Watch(data, goals, began)
    network, train, labels, score = peers.deepctr_made("DeepCTR mmoe", data, tasks, chosen, seed)
    size = chosen.get("batch_size", 1024)
    ending = until(tf.keras.callbacks.Callback, watch, score, size)
    network.fit(train, labels, size, epochs=EPOCHS, callbacks=[ending], verbose=0)
    return watch.result(ending.is_reached)


def lightgbm(folder, goals, began, seed, chosen):
    """LightGBM with these settings, a tree of each task in turn."""
    import lightgbm as library

    data = load(folder)
    watch = Watch(data, goals, began)
    train, valid, categories = peers.columns_of_trees(data, chosen["columns"])
    settings = peers.lightgbm_settings(chosen, len(train)) | {"objective": "binary", "seed": seed}
    settings["categorical_feature"] = categories
    first = None  # whose borders of bins the others take
    boosters = {}
    for task in data.tasks:
        labelled = library.Dataset(train, data.train[task], reference=first, params=settings)
        boosters[task] = library.Booster(settings, labelled)
        first = first or labelled
    totals = dict.fromkeys(data.tasks, 0.0)

    def score():
        for task, booster in boosters.items():
            trees = {"start_iteration": n - CHECKED_TREES, "num_iteration": CHECKED_TREES}
            totals[task] = totals[task] + booster.predict(valid, raw_score=True, **trees)
        return totals

    for n in range(1, peers.TREES + 1):
        for booster in boosters.values():
            booster.update()
        if n % CHECKED_TREES:
            continue
        if watch.reached(score):
            return watch.result(True)
        if watch.is_late():
            break
    return watch.result(False)


def from_csvs(function, source, goals, *chosen):
    """A way for `benchmark.measure`: get_data.py, then the function in a process of its own."""

    def way(seed):
        began = time.time()
        with tempfile.TemporaryDirectory() as folder:
            run("get_data.py", source, "--out", folder)
            found = apart(function, folder, goals, began, seed, *chosen)
        print(function.__name__, *chosen, found, flush=True)  # since the next may take long
        return found

    return way
