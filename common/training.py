"""Training one model: batches, epochs that can be stopped and gone on with.

No model is known here: `fit` takes a builder, a loss and a learning-rate schedule.
"""
import json
import signal
import time
from dataclasses import dataclass, field

import common.quiet  # noqa: F401 -- first
import keras
import numpy as np
import tensorflow as tf

from common.command import hyperparameters
from common.pickles import InputError, read, write_all
from common.progress import bar
from common.recommender import Recommender, MirroredRecommender
from common.scoring import mean_and_spread, score_tasks

VERSION = 3  # of checkpoints: another one where weights have other names or shapes, or random numbers are drawn otherwise
STEPS_PER_CALL = 50  # steps between two returns from the graph to Python


def cross_entropy(settings):
    """The loss of a row, from its label and logit: -log p of its own class, log(1 + exp(logit)) - label logit."""
    return lambda label, logit: keras.ops.softplus((1 - 2 * label) * logit)


def own_logit(settings):
    """The link of a proper loss: what the network gives is the logit of the probability itself."""
    return lambda logit: logit


def constant_rate(settings):
    """The schedule that does not anneal: the same learning rate after any number of epochs."""
    return lambda epochs: settings.learning_rate


def batches(n_rows, batch_size, rng):
    """Row numbers (steps, batch) of an epoch: every row in a new order; the first rows come again to fill the last batch up."""
    batch_size = min(batch_size, n_rows)
    order = rng.permutation(n_rows).astype(np.int32)
    return np.concatenate([order, order[: -n_rows % batch_size]]).reshape(-1, batch_size)


def strategy(batch_size):
    """MirroredStrategy where TensorFlow sees several GPUs, and a row for each, otherwise the default one, which is one device."""
    several = 1 < len(tf.config.list_logical_devices("GPU")) <= batch_size
    return tf.distribute.MirroredStrategy() if several else tf.distribute.get_strategy()


class Stopped(Exception):
    """Training was asked to stop, and did after saving: one sentence that says how to go on."""


class StopSignal:
    """In a `with`: the first Ctrl-C or SIGTERM sets `asked`, so that training ends at a place to go on from."""

    def __enter__(self):
        self.asked, self.before = False, {one: signal.signal(one, self.ask) for one in (signal.SIGINT, signal.SIGTERM)}
        return self

    def ask(self, *_):
        self.asked = True
        self.__exit__()  # the second one ends the process at once

    def __exit__(self, *_):
        for one, handler in self.before.items():
            signal.signal(one, handler)


@dataclass
class Course:
    """How far a training run has come, and what it saw on the way."""

    epoch: int = 0  # epochs finished
    step: int = 0  # steps done of the next one
    seconds: float = 0.0  # of training alone
    random: str = ""  # state of the generator that orders the rows, before the order of the unfinished epoch
    losses: list = field(default_factory=list)  # (epochs done, mean loss since the entry before)
    scores: list = field(default_factory=list)  # (epoch, {task: scores on the validation day})

    def loss_of(self, epoch):
        """Mean training loss of an epoch, counted from 1."""
        ends, losses = map(np.array, zip(*self.losses))
        inside = (ends > epoch - 1) & (ends <= epoch)
        return np.average(losses[inside], weights=np.diff(ends, prepend=0)[inside])


def save_course(path, course, model, of):
    """Write the checkpoint `path`; `of` says what run it belongs to."""
    state = [variable.numpy() for variable in model.variables()]
    write_all(path.parent, {path.name: {"of": of, "course": json.dumps(vars(course)), "state": state}})


def load_course(path, model, of):
    """The Course kept in `path`, the model's variables set to what they were; None if there is no such file."""
    if not path.exists():
        return None
    kept = read(path)
    if kept["of"] != of:
        raise InputError(f"{path} is of a run on other data or with other settings: give its settings, or leave --resume out.")
    for variable, value in zip(model.variables(), kept["state"], strict=True):
        variable.assign(value)
    return Course(**json.loads(kept["course"]))


@dataclass
class Fitted:
    """A trained model: the Recommender and its Course."""

    model: Recommender
    course: Course


def train_epoch(model, train, course, rng, settings, schedule, stop, log):
    """The steps of one epoch that are left to do; returns rows per second. `course.step` is 0 after it unless it was stopped."""
    rows, started = len(next(iter(train.values()))), course.seconds
    course.random = json.dumps(rng.bit_generator.state)
    order = batches(rows, settings.batch_size, rng)
    steps, first = len(order), course.step
    rates = np.array([schedule(course.epoch + step / steps) for step in range(steps)], np.float32)
    with bar(f"epoch {course.epoch + 1}/{settings.epochs}", total=order.size) as shown:
        shown.update(order[:first].size)
        while True:
            part, now = slice(course.step, course.step + STEPS_PER_CALL), time.perf_counter()
            loss = float(model.train(train, tf.constant(order[part]), tf.constant(rates[part])))
            course.seconds += time.perf_counter() - now
            course.step = min(part.stop, steps)
            if not np.isfinite(loss):
                raise InputError(f"the loss is {loss} by step {course.step} of epoch {course.epoch + 1}: lower --learning-rate.")
            course.losses.append((course.epoch + course.step / steps, loss))
            log(course.epoch * steps + course.step, {"loss": loss, "learning rate": float(rates[course.step - 1])})
            shown.update(order[part].size)
            if course.step == steps or stop.asked:
                break
    speed = order[first : course.step].size / max(course.seconds - started, 1e-9)
    if course.step == steps:
        course.epoch, course.step, course.random = course.epoch + 1, 0, json.dumps(rng.bit_generator.state)
    return speed


def fit(data, tasks, settings, build, loss, link, schedule, checkpoint, log):
    """Train one model on the tasks with `settings.seed`, or go on from the file `checkpoint`: a Fitted.

    Prints a line an epoch. log(step, {name: value}): takes what TensorBoard shows. Raises Stopped.
    """
    keras.utils.set_random_seed(settings.seed)
    keras.backend.clear_session()
    with (devices := strategy(min(settings.batch_size, len(data.train[tasks[0]])))).scope():
        embed, network = build(data, tasks, settings)
        kind = MirroredRecommender if devices.num_replicas_in_sync > 1 else Recommender
        model = kind(embed, network, loss, {task: data.loss_weights[task] for task in tasks}, settings.embedding_l2, link)
    of = json.dumps([VERSION, data.fingerprint, settings.seed, list(tasks), hyperparameters(settings)], sort_keys=True)
    course, rng = settings.resume and load_course(checkpoint, model, of) or Course(), np.random.default_rng(settings.seed)
    if course.random:
        rng.bit_generator.state = json.loads(course.random)
    with tf.device("CPU:0"):  # a batch of them goes to where it is needed
        train = {name: tf.constant(data.train[name]) for name in (*model.columns, *tasks)}
    groups = data.valid.get(data.meta["group"])
    shown = settings.target if settings.target in tasks else tasks[0]
    with StopSignal() as stop:
        while course.epoch < settings.epochs:
            if course.epoch and not course.step and not settings.keep_embeddings:
                model.renew_embeddings(int(rng.integers(1 << 31)))
            speed = train_epoch(model, train, course, rng, settings, schedule, stop, log)
            if not course.step:
                scores = score_tasks(data.valid, model.predict(data.valid), groups)
                course.scores.append((course.epoch, scores))
                log(course.epoch, {f"{task} {name}": value for task in tasks for name, value in scores[task].items()})
                own = "  ".join(f"{name} {mean_and_spread([scores[shown][name]])}" for name in ("auc", "uauc") if name in scores[shown])
                loss_of_epoch = course.loss_of(course.epoch)
                print(f"epoch {course.epoch}/{settings.epochs}  loss {loss_of_epoch:.5f}  {shown} {own}  {speed:,.0f} rows/s", flush=True)
            save_course(checkpoint, course, model, of)
            if stop.asked:
                where = f"step {course.step} of epoch {course.epoch + 1}" if course.step else f"epoch {course.epoch}"
                raise Stopped(f"stopped after {where}: the same command with --resume goes on from there.")
    return Fitted(model, course)
