"""One command of a script: load, train each run, score, keep what came out, compare.

A script gives its settings, a builder and, if it wants, a loss, a learning-rate schedule and the names of what its gates weigh.
"""
import json
import platform
import resource
import subprocess
import sys
import time
from contextlib import nullcontext, redirect_stdout
from dataclasses import replace
from pathlib import Path

import common.quiet  # noqa: F401 -- first
import keras
import numpy as np
import tensorflow as tf

from common import command, memory, plots, results, saved, submission
from common.columns import FINAL_ROUND_WEIGHTS, TASK_WEIGHTS
from common.command import changed, hyperparameters, numbers
from common.pickles import InputError, known, load, read
from common.scoring import mean_and_spread, score_tasks, weighted, yardsticks
from common.training import Stopped, constant_rate, cross_entropy, fit, own_logit

MEMORY, MEMORY_A_BYTE, RESERVED = 4e8, 3.1, 1.2e9  # bytes of a run, beside 3.1 a byte of pickles; addresses reserved beyond
ROOT = Path(__file__).resolve().parent.parent


def run(build, settings, multi_task=True, loss=cross_entropy, link=own_logit, schedule=constant_rate, gates=None):
    """Train and score one model `settings.runs` times on the folder of pickles that the settings name.

    build(data, tasks, settings) -> (FeatureEmbedding, keras.Model from its symbols to {task: logits (batch, 1)}).
    loss(settings) -> function (label (batch,), logit (batch,)) -> (batch,). link(settings) -> function from what the network
    gives to the logit of a probability. schedule(settings) -> function (epochs done, a
    float) -> learning rate. gates(tasks, settings) -> {name of a gate's layer: names of the experts that it weighs}.
    Writes to `user_data` the model, results.csv, the pictures and the submissions, prints the comparison and returns the mean
    validation AUC of the target. Raises InputError, Stopped.
    """
    model, folder = name_of(settings), Path(settings.user_data)
    if settings.predict or settings.export:
        return use(settings, folder / f"{model}.keras")
    with redirect_stdout(None) if settings.quiet else nullcontext():
        found = train_and_compare(build, settings, model, folder, multi_task, loss, link, schedule, gates)
    several = f" ({len(found)} runs)" if len(found) > 1 else ""
    print(f"{settings.target} validation AUC: {mean_and_spread(found)}{several}")
    return float(np.mean(found))


def train_and_compare(build, settings, model, folder, multi_task, loss, link, schedule, gates):
    """The runs and all that is printed and written of them; returns the target's validation AUC of each run."""
    size = sum(path.stat().st_size for path in folder.glob("*.pkl") if not path.name.startswith("test"))
    memory.require(MEMORY + MEMORY_A_BYTE * size, RESERVED, f"training on {folder}")
    data, flags = load(folder), changed(settings)  # before the features that this data lacks are left out
    groups_of_tasks = choose(data, settings, multi_task)
    tasks = [task for group in groups_of_tasks for task in group]
    print(headline(data), flush=True)
    results.check(folder)
    if settings.resume and not list((folder / ".checkpoints").glob(f"{model}-*.pkl")):
        raise InputError(f"--resume: there is no stopped run of {model} in {folder}: leave --resume out.")
    groups, held_against = data.valid.get(data.meta["group"]), yardsticks(data, list(data.meta["tasks"]))
    marks = {name: score_tasks(data.valid, logits, groups) for name, logits in held_against.items()}
    kept, checkpoints = [], []
    for seed in range(settings.seed, settings.seed + settings.runs):
        one, fitted = replace(settings, seed=seed), []
        for group in groups_of_tasks:
            part = f"-{group[0]}" if len(groups_of_tasks) > 1 else ""
            checkpoints.append(folder / ".checkpoints" / f"{model}{part}-{seed}.pkl")
            log = tensorboard(folder / "tensorboard" / checkpoints[-1].stem) if settings.tensorboard else lambda *_: None
            fitted.append(fit(data, group, one, build, loss(one), link(one), schedule(one), checkpoints[-1], log))
        kept.append({task: scores for part in fitted for task, scores in part.course.scores[-1][1].items()})
        results.add(folder, row_of(data, model, one, flags, tasks, kept[-1], fitted))
    for checkpoint in checkpoints:
        checkpoint.unlink(missing_ok=True)

    whole = saved.whole_model(data, settings.features.split(","), fitted)
    saved.save(folder / f"{model}.keras", whole)
    for name in ("test_a", "test_b"):
        if (folder / f"{name}.pkl").exists():
            submit(data, whole, tasks, folder, name, model)
    runs = results.models(results.read(folder, data.fingerprint))
    label, every = results.label({"model": model, "changed": flags}), list(data.meta["tasks"])
    results.print_table(runs, marks, data, every, label, settings.target)
    plots.comparison(folder / "comparison.png", runs, marks, data, every, label, settings.target)
    histories = [{"loss": part.course.losses, "scores": part.course.scores} for part in fitted]
    weights = gate_weights(data, fitted[0].model, gates(tasks, settings)) if gates else {}
    plots.curves(folder / f"{model}.png", f"{label}, {data.meta['name']}{' (SYNTHETIC)' * data.meta['synthetic']}", histories, weights)
    return [one[settings.target]["auc"] for one in kept]


def name_of(settings):
    """The name of the script that the settings are of."""
    module = type(settings).__module__
    return module if module != "__main__" else Path(sys.argv[0]).stem


def choose(data, settings, multi_task):
    """The groups of tasks that are learned together; checks the settings that all scripts have. Raises InputError."""
    data.choose([task for task in settings.tasks.split(",") if task], numbers(settings.task_weights, float))
    tasks = list(data.meta["tasks"])
    if settings.target == "all" and not multi_task:
        settings.target, groups = tasks[0], [[task] for task in tasks]
    elif settings.target not in tasks:
        raise InputError(f"--target {settings.target} is no task of {settings.user_data}: it has {', '.join(tasks)}.")
    else:
        groups = [tasks] if multi_task else [[settings.target]]
    for name in ("epochs", "batch_size", "runs"):
        if getattr(settings, name) < 1:
            raise InputError(f"{command.flag_of(name)} must be at least 1, it is {getattr(settings, name)}.")
    wanted = settings.features or ",".join(data.meta["features"])
    settings.features = known(wanted, data.meta)
    if not settings.features:
        raise InputError(f"--features: {settings.user_data} has none of them: it has {', '.join(data.meta['features'])}.")
    chosen = wanted if wanted != type(settings).features else ""  # the defaults name more than any data has
    data.absent = [name for name in chosen.split(",") if name and name not in data.meta["features"]]
    return groups


def headline(data):
    """The line that says what is trained on."""
    rows = [len(next(iter(split.values()))) for split in (data.train, data.valid)]
    lacking = f"; without {', '.join(data.absent)}, which this data lacks" if data.absent else ""
    return (f"{data.meta['name']}{' (SYNTHETIC)' * data.meta['synthetic']}: {rows[0]:,} training rows, {rows[1]:,} validation rows "
            f"(day {data.meta['valid_day']}){lacking}")


def row_of(data, model, settings, flags, tasks, scores, fitted):
    """The row of results.csv of one run."""
    rows, seconds = len(data.train[tasks[0]]) * settings.epochs * len(fitted), sum(one.course.seconds for one in fitted)
    metrics = {f"{name}_{task}": value for task in tasks for name, value in scores[task].items()}
    if "uauc" in scores[tasks[0]] and list(data.meta["tasks"]) == tasks:
        metrics["weighted_uauc"] = weighted({task: scores[task]["uauc"] for task in tasks}, data.meta["tasks"])
    unit = 1 if sys.platform == "darwin" else 1024  # of ru_maxrss, in bytes
    return {
        "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()), "data": data.meta["name"], "fingerprint": data.fingerprint,
        "synthetic": data.meta["synthetic"], "valid_day": data.meta["valid_day"], "model": model, "tasks": ",".join(tasks),
        "seed": settings.seed, "settings": json.dumps(hyperparameters(settings), sort_keys=True), "changed": flags,
        **{name: "" if np.isnan(value) else value for name, value in metrics.items()},
        "auc_by_epoch": json.dumps({task: [round(scores[task]["auc"], 6) for _, scores in one.course.scores] for one in fitted for task in one.course.scores[0][1]}),
        "seconds": round(seconds, 2), "rows_per_second": round(rows / seconds),
        "peak_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6),
        "python": platform.python_version(), "tensorflow": tf.__version__, "keras": keras.__version__, "numpy": np.__version__,
        "machine": f"{platform.system()} {platform.machine()}", "commit": commit(),
    }


def commit():
    """The commit of the project's folder, -dirty if it was changed since; nothing where it is no git checkout."""
    try:
        return subprocess.run(["git", "-C", ROOT, "describe", "--always", "--dirty"], capture_output=True, text=True).stdout.strip()
    except OSError:
        return ""


def tensorboard(folder):
    """The function log(step, {name: value}) that writes event files to `folder`."""
    writer, scalars = tf.summary.create_file_writer(str(folder)), tf.compat.v1.SummaryMetadata(data_class=1)
    scalars.plugin_data.plugin_name = "scalars"  # what tf.summary.scalar writes, but it needs the package tensorboard for it

    def log(step, values):
        with writer.as_default(step):
            for name, value in values.items():
                tf.summary.write(name, tf.constant(value, tf.float32), metadata=scalars)
        writer.flush()

    return log


def gate_weights(data, model, experts):
    """{gate: {expert: mean weight}} over the validation rows, of {name of a gate's layer: names of its experts}."""
    layers = {name: model.network.get_layer(name).output for name in experts}
    gates, n = keras.Model(model.network.inputs, layers), len(data.valid[model.columns[0]])
    totals = {name: 0.0 for name in experts}
    for start in range(0, n, saved.BATCH):
        rows = {name: data.valid[name][start : start + saved.BATCH] for name in model.columns}
        for name, weights in gates(list(model.embed(rows))).items():
            totals[name] = totals[name] + weights.numpy().sum(axis=0, dtype=np.float64)
    return {name: dict(zip(experts[name], (total / n).tolist())) for name, total in totals.items()}


def submit(data, whole, tasks, folder, name, model):
    """Write the submission of a test file, if it has users and feeds and the tasks are those of one of the contest's rounds."""
    raw = data.meta.get("raw", {})
    if "userid" not in raw.values() or set(tasks) not in (set(TASK_WEIGHTS), set(FINAL_ROUND_WEIGHTS)):
        return
    rows, columns = read(folder / f"{name}.pkl"), {}
    if rows.pop("stamp") != data.meta["stamp"]:
        return  # left by an earlier data set
    vocabularies = read(folder / "vocabularies.pkl")
    for column, name_of_raw in raw.items():
        known = data.tables[column]["key"] if column in data.tables else np.concatenate([[-1, -1], vocabularies[column]])
        columns[name_of_raw] = known[rows[column]]
    path = folder / f"{model}_submission_{name[-1]}.csv"
    submission.write(path, columns["userid"], columns["feedid"], saved.probabilities(whole, columns))
    print(f"{path}: {len(columns['userid']):,} rows for the contest")


def use(settings, path):
    """--predict and --export: the saved model at work, without training."""
    if settings.predict:
        out = settings.out or str(Path(settings.user_data) / f"{path.stem}_predictions.csv")
        print(f"{out}: {saved.predict(path, settings.predict, out):,} rows")
    if settings.export:
        print(f"{saved.export(path, settings.export)}: a SavedModel")


def main(build, settings_class, description, argv=None, **options):
    """The command line of a script: returns what `run` returns; a user's mistake is one sentence on stderr and exit code 2."""
    settings = command.parse(settings_class, description, argv)
    try:
        return command.main(lambda: run(build, settings, **options), settings.user_data)
    except tf.errors.ResourceExhaustedError:
        print(memory.ran_out(), file=sys.stderr)
        sys.exit(2)
    except Stopped as stopped:
        print(stopped, file=sys.stderr)
        sys.exit(130)
    except KeyboardInterrupt:
        print("stopped; what was in user_data before is as it was.", file=sys.stderr)
        sys.exit(130)
