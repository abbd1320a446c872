"""What goes on beside the steps of `fit`: new embeddings, scores, lines, a run that can be stopped.

Keras's own callbacks work beside them.
"""

import hashlib
import json
import shutil
import signal
import threading
import time
import warnings
from pathlib import Path

import common.backend  # noqa: F401
from common.command import InputError, Stopped, bar
from common.pickles import beside
from common.scores import mean_and_spread, score_tasks
from common.settings import hyperparameters

import keras
import numpy as np

SOME = 10_000  # rows
VERSION = 4  # of checkpoints: another where weights have other names or shapes


class RenewedEmbeddings(keras.callbacks.Callback):
    """New embeddings at the start of each epoch but the first; the network stays as it is.

    What lets a network overfit from its second epoch on is the embeddings of rare ids, which know
    the rows that they have seen by heart, and a network that learned to believe them (Zhang et al.,
    CIKM 2022). With new ones each epoch sees its rows as if for the first time (multi-epoch
    learning, MEDA: Fan et al., 2023).
    """

    def __init__(self, seed, keep=False):
        """keep: whether to go on with the embeddings of the epoch before all the same."""
        super().__init__()
        self.seed = seed
        self.keep = keep

    def on_epoch_begin(self, epoch, logs=None):
        step = int(self.model.optimizer.iterations) % self.params["steps"]
        if epoch and step == 0 and not self.keep:  # not where an epoch is gone on with
            self.model.renew_embeddings(1000 * self.seed + epoch)


class TrainingLog(keras.callbacks.Callback):
    """How training goes: losses every few steps, exact validation scores after each epoch.

    losses: [(epochs done, mean loss since the last)]. scores: [(epoch, {task: scores})]. seconds:
    what the steps took. It prints a line an epoch, and adds `val_TASK_auc` and so on to Keras's
    logs, for the callbacks that come after it.
    """

    def __init__(self, data, target, verbose=1):
        """data: a Data, whose validation rows are scored; target: the task of the line."""
        super().__init__()
        self.data = data
        some = {name: column[:SOME] for name, column in data.train.items()}
        self.rows = data.valid or some  # where every day is trained on, none validates
        self.target = target
        self.verbose = verbose
        self.losses = []
        self.scores = []
        self.seconds = 0.0

    def on_epoch_begin(self, epoch, logs=None):
        self.epoch = epoch
        self.first_step = self.steps_done()
        self.total = 0.0  # of the losses of this epoch's steps
        self.seconds_before = self.seconds
        about = f"epoch {epoch + 1}/{self.params['epochs']}"
        self.bar = bar(about, total=self.params["steps"], shown=self.verbose)
        self.bar.update(self.first_step - epoch * self.params["steps"])

    def on_train_batch_begin(self, batch, logs=None):
        self.now = time.perf_counter()

    def on_train_batch_end(self, batch, logs=None):
        self.seconds += time.perf_counter() - self.now
        steps = self.steps_done()
        before = round(self.losses[-1][0] * self.params["steps"]) if self.losses else 0
        total = logs["loss"] * (steps - self.first_step)
        self.losses.append((steps / self.params["steps"], (total - self.total) / (steps - before)))
        self.total = total
        self.bar.update(steps - before)

    def on_epoch_end(self, epoch, logs=None):
        self.bar.close()
        if not np.isfinite(logs["loss"]):
            return  # `on_train_end` says so
        logits = self.model.logits(self.rows)
        if not all(np.isfinite(values).all() for values in logits.values()):
            flags = "--learning-rate or --embedding-l2"
            raise InputError(f"the logits are no numbers after epoch {epoch + 1}: lower {flags}.")
        valid = self.data.valid
        scores = score_tasks(valid, logits, self.data.groups) if valid else {}
        self.scores.append((epoch + 1, scores))
        for task in scores:
            logs |= {f"val_{task}_{name}": value for name, value in scores[task].items()}
        if self.verbose:
            print(self.line(epoch, scores), flush=True)

    def line(self, epoch, scores):
        """What is printed of an epoch, counted from 0."""
        parts = [f"epoch {epoch + 1}/{self.params['epochs']}", f"loss {self.loss_of(epoch):.5f}"]
        task = self.target if self.target in scores else next(iter(scores), None)
        row = scores.get(task, {})
        aucs = [f"{name} {mean_and_spread([row[name]])}" for name in ("auc", "uauc") if name in row]
        parts += [f"{task} {'  '.join(aucs)}"] if aucs else []
        rows = (self.steps_done() - self.first_step) * self.model.rows_a_step
        parts.append(f"{rows / max(self.seconds - self.seconds_before, 1e-9):,.0f} rows/s")
        return "  ".join(parts)

    def on_train_end(self, logs=None):
        if self.losses and not np.isfinite(self.losses[-1][1]):
            loss = self.losses[-1][1]
            raise InputError(
                f"the loss is {loss} in epoch {self.epoch + 1}: lower --learning-rate."
            )

    def steps_done(self):
        """Steps since the first epoch began."""
        return int(self.model.optimizer.iterations)

    def loss_of(self, epoch):
        """Mean training loss of an epoch, counted from 0."""
        ends, losses = map(np.array, zip(*self.losses, strict=True))
        inside = (ends > epoch) & (ends <= epoch + 1)
        return np.average(losses[inside], weights=np.diff(ends, prepend=0)[inside])


class Resume(keras.callbacks.BackupAndRestore):
    """Keras's backup after each epoch, made amid an epoch too when Ctrl-C or SIGTERM asks to stop.

    Stopped is raised then. With weights, moments and random states it keeps the TrainingLog. A
    folder is of one run: its name has a hash of the data, the settings, the tasks and the seed.
    """

    def __init__(self, data, settings, tasks, seed, log):
        self.folder = checkpoint_folder(data, settings, tasks, seed)
        super().__init__(self.folder, delete_checkpoint=False)
        self.log = log
        self.asked = False
        self.handlers = {}
        if not settings.resume:
            shutil.rmtree(self.folder, ignore_errors=True)

    def on_train_begin(self, logs=None):
        try:
            super().on_train_begin(logs)
            steps = int(self.model.optimizer.iterations)
            if steps:
                kept = json.loads((self.folder / f"log-{steps}.json").read_text())
                states = self.model.network.non_trainable_variables
                for state, value in zip(states, kept.pop("states"), strict=True):
                    state.assign(value)  # Keras does not save what its random numbers come from
                vars(self.log).update(kept)
        except (OSError, ValueError, KeyError):
            raise InputError(
                f"{self.folder} is damaged: remove it, or leave --resume out."
            ) from None
        self.model._initial_epoch = steps // self.params["steps"]
        if steps % self.params["steps"]:  # Keras would say that the rest of an epoch is too little
            warnings.filterwarnings("ignore", "Your input ran out of data")
        if threading.current_thread() is threading.main_thread():  # no other may set handlers
            for number in (signal.SIGINT, signal.SIGTERM):
                self.handlers[number] = signal.signal(number, self.ask)

    def ask(self, *_):
        self.asked = True
        self.give_handlers_back()  # the second one ends the process at once

    def give_handlers_back(self):
        for number, handler in self.handlers.items():
            signal.signal(number, handler)

    def _save_model(self):
        """Keras's, but that a save that is broken off leaves the one before it."""
        self.folder.mkdir(parents=True, exist_ok=True)
        steps = int(self.model.optimizer.iterations)
        kept = {name: getattr(self.log, name) for name in ("losses", "scores", "seconds")}
        states = self.model.network.non_trainable_variables
        kept["states"] = [state.numpy().tolist() for state in states]
        with beside(self.folder / f"log-{steps}.json") as place:
            place.write_text(json.dumps(kept))
        with beside(Path(self._weights_path)) as place:
            self.model.save_weights(place)
        for path in self.folder.glob("log-*.json"):
            if path.name != f"log-{steps}.json":
                path.unlink()

    def on_train_batch_end(self, batch, logs=None):
        if self.asked:
            self.stop()

    def on_epoch_end(self, epoch, logs=None):
        if not np.isfinite(logs["loss"]):
            self.give_handlers_back()  # the log ends `fit` with an error
            return
        super().on_epoch_end(epoch, logs)
        if self.asked:
            self.stop()

    def stop(self):
        """Save where training is, and raise Stopped."""
        self._save_model()
        epoch, step = divmod(int(self.model.optimizer.iterations), self.params["steps"])
        place = f"step {step} of epoch {epoch + 1}" if step else f"epoch {epoch}"
        raise Stopped(f"stopped after {place}: the same command with --resume goes on from there.")

    def on_train_end(self, logs=None):
        self.give_handlers_back()


def checkpoint_folder(data, settings, tasks, seed):
    """Where a run's checkpoint is kept."""
    of = [VERSION, data.fingerprint, list(tasks), seed, hyperparameters(settings)]
    text = json.dumps(of, sort_keys=True)
    digest = hashlib.blake2b(text.encode(), digest_size=6).hexdigest()
    return Path(settings.user_data) / ".checkpoints" / f"{settings.name}-{seed}-{digest}"


def tensorboard(settings, tasks, seed):
    """Keras's TensorBoard callback in a list, if the settings ask for it. Raises InputError."""
    if not settings.tensorboard:
        return []
    try:
        import tensorboard  # noqa: F401
    except ImportError:
        raise InputError("--tensorboard needs a package: pip install tensorboard.") from None
    folder = Path(settings.user_data) / "tensorboard" / f"{settings.name}-{'-'.join(tasks)}-{seed}"
    return [keras.callbacks.TensorBoard(folder, update_freq="epoch")]
