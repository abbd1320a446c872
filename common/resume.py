"""A run that can be stopped and gone on with, and that keeps its best epoch."""

import hashlib
import json
import signal
import threading
from pathlib import Path
from tokenize import TokenError

import common.backend  # noqa: F401
from common.callbacks import tensorboard
from common.command import STOPS, InputError, Stopped
from common.pickles import beside, remove
from common.scores import mean_auc
from common.settings import hyperparameters
from common.source import DAMAGED

import keras
import numpy as np

VERSION = 8  # of checkpoints: another where weights have another order or other shapes


def write_arrays(path, arrays):
    with beside(path) as place, open(place, "wb") as file:
        np.savez(file, *arrays)


def read_arrays(path, like):
    """What `write_arrays` wrote, with the shapes that those of `like` have. Raises InputError."""
    try:
        with np.load(path) as arrays:
            found = list(arrays.values())
    except (*DAMAGED, OSError, ValueError, SyntaxError, TokenError):
        raise damaged(path.parent) from None
    if [array.shape for array in found] != [tuple(wanted.shape) for wanted in like]:
        raise damaged(path.parent)
    return found


def damaged(folder):
    return InputError(f"{folder} is damaged: remove it, or leave --resume out.")


class Resume(keras.callbacks.Callback):
    """Keeps a checkpoint after each epoch, and amid one when Ctrl-C or SIGTERM asks to stop.

    Stopped is raised then. With weights, moments and random states it keeps the TrainingLog. A
    folder is of one run: its name has a hash of the data, the settings, the tasks and the seed.
    Keras's BackupAndRestore has no random states, and where its file cannot be written the process
    crashes as it ends.
    """

    def __init__(self, data, settings, tasks, seed, log):
        super().__init__()
        self.folder = checkpoint_folder(data, settings, tasks, seed)
        self.path = self.folder / "latest.npz"
        self.log = log
        self.asked = False
        self.handlers = {}
        if not settings.resume:
            remove(self.folder)

    def on_train_begin(self, logs=None):
        if self.path.exists():
            self.restore()
        if threading.current_thread() is threading.main_thread():  # no other may set handlers
            for number in STOPS:
                self.handlers[number] = signal.signal(number, self.ask)

    @property
    def steps(self):
        return int(self.model.optimizer.iterations)

    @property
    def variables(self):
        return [*self.model.variables, *self.model.optimizer.variables]

    def restore(self):
        values = read_arrays(self.path, self.variables)
        for variable, value in zip(self.variables, values, strict=True):
            variable.assign(value)
        try:
            kept = (self.folder / f"log-{self.steps}.json").read_text()
            vars(self.log).update(json.loads(kept))
        except (OSError, ValueError, TypeError):
            raise damaged(self.folder) from None
        self.model._initial_epoch = self.steps // self.params["steps"]

    def ask(self, *_):
        self.asked = True
        for number, handler in self.handlers.items():  # a second one ends the process at once
            signal.signal(number, handler)

    def save(self):
        """Write a checkpoint: one that is broken off leaves the one before it."""
        self.folder.mkdir(parents=True, exist_ok=True)
        log = self.folder / f"log-{self.steps}.json"
        kept = {name: getattr(self.log, name) for name in ("losses", "scores", "seconds")}
        with beside(log) as place:
            place.write_text(json.dumps(kept))
        write_arrays(self.path, [variable.numpy() for variable in self.variables])
        for path in self.folder.glob("log-*.json"):
            if path != log:
                path.unlink()

    def on_train_batch_end(self, batch, logs=None):
        if self.asked and self.steps % self.params["steps"]:
            self.stop()  # else the epoch is over, and is scored first

    def on_epoch_end(self, epoch, logs=None):
        self.save()
        if self.asked:
            self.stop()

    def stop(self):
        """Save where training is, and raise Stopped."""
        self.save()
        epoch, step = divmod(self.steps, self.params["steps"])
        place = f"step {step} of epoch {epoch + 1}" if step else f"epoch {epoch}"
        raise Stopped(f"stopped after {place}: the same command with --resume goes on from there.")


class BestEpoch(keras.callbacks.EarlyStopping):
    """Keras's EarlyStopping by the mean validation AUC, which goes on where Resume does.

    It stands behind TrainingLog, from which it knows the epochs of before, and Resume, in whose
    folder it keeps the best weights.
    """

    def __init__(self, patience, log, folder):
        """patience: epochs without a better AUC after which training ends."""
        best = {"mode": "max", "restore_best_weights": True}
        super().__init__("val_auc", patience=patience, **best)
        self.log = log
        self.folder = folder

    def path(self, epoch):
        return self.folder / f"best-{epoch}.npz"

    def on_train_begin(self, logs=None):
        super().on_train_begin(logs)
        if self.params["epochs"] == 1:
            raise InputError("--patience chooses among epochs: give it some, as by --epochs 20.")
        aucs = [mean_auc(scores) for _, scores in self.log.scores]
        if aucs:
            self.best_epoch = int(np.argmax(aucs))
            self.best = aucs[self.best_epoch]
            self.wait = len(aucs) - 1 - self.best_epoch
            self.best_weights = self.model.get_weights()  # the best, if it was the last
            if self.path(self.best_epoch).exists():
                self.best_weights = read_arrays(self.path(self.best_epoch), self.best_weights)
            else:  # the run was stopped right after it
                self.keep(self.best_epoch)
            if self.wait >= self.patience:
                self.model._initial_epoch = self.params["epochs"]

    def on_epoch_end(self, epoch, logs=None):
        if np.isnan(logs["val_auc"]):
            raise InputError("--patience: the validation rows are of one class: leave it out.")
        super().on_epoch_end(epoch, logs)
        if self.best_epoch == epoch:
            self.keep(epoch)

    def keep(self, epoch):
        """Write the best weights, those of an epoch, in the place of earlier ones."""
        self.folder.mkdir(parents=True, exist_ok=True)
        write_arrays(self.path(epoch), self.best_weights)
        for path in self.folder.glob("best-*.npz"):
            if path != self.path(epoch):
                path.unlink()

    def on_train_end(self, logs=None):
        super().on_train_end(logs)
        self.log.kept = self.best_epoch + 1
        if self.log.verbose:
            print(f"epoch {self.log.kept} is kept: mean validation AUC {self.best:.4f}", flush=True)


def checkpoint_folder(data, settings, tasks, seed):
    """Where a run's checkpoint is kept."""
    of = [VERSION, data.fingerprint, list(tasks), seed, hyperparameters(settings)]
    text = json.dumps(of, sort_keys=True)
    digest = hashlib.blake2b(text.encode(), digest_size=6).hexdigest()
    return Path(settings.user_data) / ".checkpoints" / f"{settings.name}-{seed}-{digest}"


def asked_for(data, settings, tasks, seed, log):
    """The callbacks of a run that the settings ask for; Resume always, for Ctrl-C and SIGTERM.

    BestEpoch for --patience, TensorBoard for --tensorboard. They stand behind the TrainingLog, and
    TensorBoard before what may end an epoch. Raises InputError.
    """
    resume = Resume(data, settings, tasks, seed, log)
    run = f"{resume.folder.name}-{'-'.join(tasks)}"[:200]  # a file's name has its limit
    callbacks = [tensorboard(settings, run)] if settings.tensorboard else []
    callbacks.append(resume)
    if settings.patience:
        if not data.valid:
            raise InputError("--patience needs a day that validates: choose the epochs on one.")
        callbacks.append(BestEpoch(settings.patience, log, resume.folder))
    return callbacks
