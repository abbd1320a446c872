"""DeepCTR 0.9.4 and LightGBM beside this project, on the same rows and features: run by hand.

python tests/by_hand/peers.py USER_DATA [--rounds 5] [--batch-size 1024]

All have the sizes of our defaults, without L2; the learning rate grows with the root of the batch.
auc and uauc are means over tasks after an epoch, rows_per_second are of the second one. With the
usual batches the peers' scores go to results.csv, for study.py. The packages of the peers are
installed in user_data/.peers.
"""

import os
import resource
import subprocess
import sys
import tempfile
import time
from functools import partial
from importlib import import_module
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from common import results
from common.command import Parser, user_errors
from common.contract import load
from common.scores import score_tasks, weighted

import numpy as np
from benchmark import ROOT, measure
from runs import apart
from scipy.special import logit

PACKAGES = ("deepctr==0.9.4", "tf_keras==2.21.0", "setuptools<81", "lightgbm==4.7.0")
PLACE = ROOT / "user_data" / ".peers"
MODELS = ("deepfm", "mmoe", "ple")
TREES = {"n_estimators": 200, "learning_rate": 0.05, "min_child_samples": 200, "subsample": 0.8}
TREES |= {"subsample_freq": 1, "colsample_bytree": 0.8, "verbose": -1}
DENSE = {  # endings of the features that LightGBM gets
    "LightGBM": ("",),
    "LightGBM, history": ("_history",),
    "LightGBM, history and watch times": ("_history", "_watch_time"),
}


def ours(model, data, tasks, settings, seed):
    """This project's own training: rows per second, {task: validation logits}."""
    model, _ = import_module(model).train(data, tasks, settings, seed)
    logits = model.logits(data.valid)
    batches = model.batches(data.train, tasks, settings.batch_size, seed)
    since = time.perf_counter()
    model.fit(batches, verbose=0, shuffle=False)
    return len(data.train["day"]) / (time.perf_counter() - since), logits


def deepctr(model, data, tasks, settings, seed):
    """DeepCTR's model with Adam and `fit`: rows per second, {task: validation logits}."""
    import tensorflow as tf
    from deepctr import models
    from deepctr.feature_column import DenseFeat, SparseFeat, VarLenSparseFeat

    tf.keras.utils.set_random_seed(seed)
    train, valid = (
        coded(data, rows) | {"dense_values": dense(data, rows)} for rows in (data.train, data.valid)
    )
    columns = []
    for name, values in train.items():
        n = data.meta["vocabularies"].get(data.features.get(name, {}).get("vocabulary"))
        column = SparseFeat(name, n, settings.embedding_dim)
        if values.ndim > 1:
            column = VarLenSparseFeat(column, values.shape[1])
        columns.append(DenseFeat(name, values.shape[1]) if name == "dense_values" else column)
    common = {"l2_reg_embedding": 0, "l2_reg_dnn": 0, "seed": seed}
    if model == "deepfm":
        common |= {"dnn_hidden_units": settings.hidden, "dnn_dropout": settings.dropout}
        network = models.DeepFM(columns, columns, l2_reg_linear=0, **common)
    else:
        common |= {"task_types": ["binary" for _ in tasks], "task_names": tasks}
        common |= {"expert_dnn_hidden_units": (settings.expert_dim,), "gate_dnn_hidden_units": ()}
        common |= {"tower_dnn_hidden_units": settings.tower}
    if model == "mmoe":
        network = models.MMOE(columns, num_experts=settings.experts, **common)
    if model == "ple":
        common |= {"specific_expert_num": settings.own_experts[0], "num_levels": 1}
        network = models.PLE(columns, shared_expert_num=settings.shared_experts, **common)
    network.compile(tf.keras.optimizers.Adam(settings.learning_rate), "binary_crossentropy")
    labels = [data.train[task].astype(np.float32)[:, None] for task in tasks]
    fit = partial(network.fit, train, labels, settings.batch_size, verbose=0)
    fit()
    scores = network.predict(valid, 16384, verbose=0)
    scores = scores if isinstance(scores, list) else [scores]
    since = time.perf_counter()
    fit()
    speed = len(labels[0]) / (time.perf_counter() - since)
    return speed, {task: log_odds(p[:, 0]) for task, p in zip(tasks, scores, strict=True)}


def coded(data, rows):
    """{id: codes (rows,), list: codes (rows, longest), padded} as tutorials have them."""
    columns = {}
    for name, feature in data.features.items():
        key = feature["table"]
        column = data.tables[key][name] if key else rows[name]
        if feature["kind"] == "list":
            lengths = np.diff(column["offsets"])
            padded = np.zeros((len(lengths), max(lengths.max(), 1)), np.int32)
            padded[np.arange(padded.shape[1]) < lengths[:, None]] = column["values"]
            column = padded
        if feature["kind"] in ("id", "list"):
            columns[name] = column[rows[key]] if key else column
    return columns


def dense(data, rows):
    """All dense values and dot products of rows, (rows, width)."""
    from common.embedding import FeatureEmbedding, LookUp
    from common.recommender import Recommender

    model = Recommender(FeatureEmbedding(LookUp.of(data), 1), None)
    parts = [model.embedding(batch)[1] for batch, _ in model.scoring_batches(rows)]
    return np.concatenate(parts)[: len(rows["day"])]


def lightgbm(model, data, tasks, settings, seed):
    """LightGBM on dense values, a model a task: rows times tasks per second, {task: logits}."""
    from lightgbm import LGBMClassifier

    numbers = [name for name in data.features if data.features[name]["kind"] in ("dense", "dot")]
    data.choose(features=[name for name in numbers if name.endswith(DENSE[model])])
    train, valid = (dense(data, rows) for rows in (data.train, data.valid))
    since = time.perf_counter()
    scores = {}
    for task in tasks:
        trees = LGBMClassifier(**TREES, random_state=seed).fit(train, data.train[task])
        scores[task] = log_odds(trees.predict_proba(valid)[:, 1])
    return len(train) * len(tasks) / (time.perf_counter() - since), scores


def log_odds(p):
    return logit(np.clip(p.astype(np.float64), 1e-7, 1 - 1e-7))


def trained(way, model, folder, size, seed):
    """One training in this process, {quantity: number}; that of a peer goes to results.csv."""
    sys.path.append(str(PLACE))
    data = load(folder)
    settings = import_module("mmoe" if model in DENSE else model).Settings(
        batch_size=size, learning_rate=0.001 * (size / 1024) ** 0.5, embedding_l2=0.0, quiet=True
    )
    tasks = list(data.tasks)[: 1 if model == "deepfm" else None]
    since = time.perf_counter()
    with tempfile.TemporaryDirectory() as settings.user_data:  # for checkpoints
        speed, logits = way(model, data, tasks, settings, seed)
    cost = {"seconds": time.perf_counter() - since, "rows_per_second": speed}
    cost["peak_mb"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000
    scores = score_tasks(data.valid, logits, data.groups)
    if way is not ours and size == 1024:
        name = model if model in DENSE else f"DeepCTR {model}"
        row = {"model": name, "seed": seed, "tasks": ",".join(tasks), "settings": "{}", **cost}
        row |= {"data": data.meta["name"], "fingerprint": load(folder).fingerprint}
        row |= {f"{name}_{task}": x for task in tasks for name, x in scores[task].items()}
        if tasks == list(data.tasks):
            row["weighted_uauc"] = weighted({t: scores[t]["uauc"] for t in tasks}, data.tasks)
        results.add(folder, row)
    return cost | {name: np.mean([scores[t][name] for t in tasks]) for name in ("auc", "uauc")}


def main(argv=None):
    """Train all in turn, each seed in a process of its own, and print the medians."""
    parser = Parser(__doc__)
    parser.add_argument("folder", help="a folder of pickles")
    parser.add_argument("--rounds", type=int, default=5, help="seeds")
    parser.add_argument("--batch-size", type=int, default=1024)
    args = parser.parse_args(argv)
    if not PLACE.exists():
        words = ["pip", "install", "-q", "--no-deps", "--target", PLACE, *PACKAGES]
        subprocess.run([sys.executable, "-m", *words], check=True)
    os.environ["TF_USE_LEGACY_KERAS"] = "1"  # for DeepCTR
    ways = [(way, model) for model in MODELS for way in (ours, deepctr)]
    ways += [(lightgbm, model) for model in DENSE]
    call = partial(partial, apart, trained)
    more = (args.folder, args.batch_size)
    ways = {f"{way.__name__} {model}": call(way, model, *more) for way, model in ways}
    measure(ways, args.rounds)


if __name__ == "__main__":
    with user_errors():
        main()
