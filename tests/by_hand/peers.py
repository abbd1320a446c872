"""DeepCTR 0.9.4 and LightGBM beside this project, on the same rows: run by hand.

python tests/by_hand/peers.py search USER_DATA [USER_DATA ...]   eight settings each
python tests/by_hand/peers.py scores USER_DATA [--rounds 5]      the best of them, a seed a round
python tests/by_hand/peers.py users USER_DATA [--rounds 5]      what other users would change
python tests/by_hand/peers.py speed USER_DATA [--rounds 5] [--keep NAME]
python tests/by_hand/peers.py reach SOURCE [--auc .935] [--uauc .66] [--peers NAMES] [--rounds 5]

`search` is for the day before the one that is reported. Each peer has the same number of settings,
drawn from its own ranges, the first being its defaults; each setting says which dense columns it
gets: `ours`, what get_data.py made; `simple`, the 43 of `simple_history`; or both. With --after
NAME only the three that were best in the search on the data NAME, such as a tenth of the users, are
tried (successive halving). Trees stop where the searched day's AUC does not rise for 30 rounds,
networks at the first epoch in which it does not rise, three at most, and both keep the best number.
`scores` puts runs of the best into results.csv, for study.py; its seconds are of training alone,
and its memory of the process. Seeds say what another run would give; `users` says what other users
of the day would, for differences between MMOE or PLE and the peers, and keeps them in
records/users.csv. `speed` compares rows per second at the sizes of our defaults,
without L2 and dropout. `reach` takes CSVs and measures the seconds from them to an AUC of the first
task and a weighted uAUC, as reach.py says, of our MMOE and, in turn, of DeepCTR's and of LightGBM,
each by default and as searched. With --keep the medians of both become the table NAME of
records/speed.csv.

What `search` finds is kept in records/peers.csv. The packages of the peers are installed in
user_data/.peers.
"""

import itertools
import json
import os
import subprocess
import sys
import tempfile
import time
from functools import partial
from importlib import import_module
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
if __name__ in ("__main__", "__mp_main__"):  # here and in the processes of `apart`
    # tf_keras is there, and DeepCTR takes it if both are told before TensorFlow is imported
    sys.path.append(str(Path(__file__).resolve().parents[2] / "user_data" / ".peers"))
    os.environ["TF_USE_LEGACY_KERAS"] = "1"

from common import results
from common.command import InputError, Parser, user_errors
from common.contract import load
from common.pickles import beside
from common.scores import mean_auc, score_tasks

import numpy as np
import pandas as pd
from benchmark import ROOT, measure, run
from runs import FEW, MULTI_TASK, RECORDS, apart, short, shown
from scipy.special import logit

PACKAGES = ("deepctr==0.9.4", "tf_keras==2.21.0", "setuptools<81", "lightgbm==4.7.0")
PLACE = ROOT / "user_data" / ".peers"
FOUND = RECORDS / "peers.csv"
USERS = RECORDS / "users.csv"
OF_USERS = "data valid_day one other score difference low high seeds draws users".split()
DRAWS = 1000
BUDGET = 8  # settings that each peer is tried with
HALVED = 3  # of them, those that go on from a small data set to the whole
EPOCHS = 3  # of a network, at most
TREES = 4000  # of a task, at most
ROWS_A_TREE = 1_000_000  # at most; of fewer rows each tree draws 80 %
DEFAULTS = {"columns": "ours"}
NETWORK = {
    "columns": ["ours", "simple", "both"],
    "learning_rate": [0.0005, 0.001, 0.002],
    "batch_size": [512, 1024, 2048],
    "l2": [0.0, 1e-6, 1e-5, 1e-4],
    "dropout": [0.0, 0.1, 0.3],
}
SPACE = {
    "LightGBM": {
        "columns": ["ours", "simple", "both"],
        "learning_rate": [0.02, 0.05, 0.1],
        "num_leaves": [4, 7, 15, 31],
        "min_child_samples": [200, 1000, 5000],
        "colsample_bytree": [0.3, 0.5, 0.8],
        "reg_lambda": [0.0, 1.0, 10.0, 100.0],
    },
    "DeepCTR deepfm": NETWORK,
    "DeepCTR mmoe": NETWORK,
    "DeepCTR ple": NETWORK,
}
EARLIER = {  # the best of a search over wider ranges, when trees had no device; tried too
    "LightGBM": [
        {
            "columns": columns,
            "learning_rate": 0.02,
            "num_leaves": 7,
            "min_child_samples": 1000,
            "colsample_bytree": share,
            "reg_lambda": penalty,
        }
        for columns, share, penalty in (("both", 0.5, 1.0), ("ours", 0.8, 10.0))
    ]
}
SMOOTHING = 20  # rows


# ---- columns


def entities(data, rows):
    """{name: whole numbers (rows,)} of the groups whose past `simple_history` counts."""
    feed = data.tables["feed"]
    tags = feed["manual_tag_list"]
    first = np.minimum(tags["offsets"][:-1], max(len(tags["values"]) - 1, 0))
    has_tag = np.diff(tags["offsets"]) > 0
    first_tag = np.where(has_tag, tags["values"][first], 0) if len(tags["values"]) else has_tag * 0
    seconds = np.asarray(feed["videoplayseconds"], np.float64).reshape(len(first_tag), -1)[:, 0]
    borders = np.quantile(seconds, np.linspace(0, 1, 21)[1:-1])
    return {
        "user": rows["user"],
        "video": rows["feed"],
        "author": feed["authorid"][rows["feed"]],
        "tab": rows["device"],
        "first tag": first_tag[rows["feed"]],
        "length": np.searchsorted(borders, seconds)[rows["feed"]],
    }


def simple_history(data):
    """The 43 columns of training and validation rows, what many would begin with: two arrays.

    For each of six groups the log of the smoothed past rate of each of six actions over everyone's
    and log(1 + rows), over strictly earlier days; and the video's length.
    """
    both = [data.train, data.valid]
    day = np.concatenate([rows["day"] for rows in both])
    actions = [name for name in (*data.meta["tasks"], *data.meta["more_tasks"]) if name in both[0]]
    labels = np.stack([np.concatenate([rows[a] for rows in both]) for a in actions[:6]], axis=1)
    columns = []
    parts = [entities(data, rows) for rows in both]
    for name in parts[0]:
        group = np.concatenate([part[name] for part in parts])
        columns.append(past_of(group, day, labels.astype(np.float32)))
    feed = np.concatenate([rows["feed"] for rows in both])
    seconds = np.asarray(data.tables["feed"]["videoplayseconds"], np.float32)
    columns.append(seconds.reshape(len(seconds), -1)[feed, :1])
    every = np.concatenate(columns, axis=1)
    return every[: len(data.train["day"])], every[len(data.train["day"]) :]


def past_of(group, day, labels):
    """The past of each row's group before its day: (rows, actions + 1)."""
    size = int(group.max()) + 1
    n = np.zeros(size)
    positives = np.zeros((size, labels.shape[1]))
    out = np.zeros((len(group), labels.shape[1] + 1), np.float32)
    for today in np.unique(day):
        rows = np.flatnonzero(day == today)
        everyone = (positives.sum(axis=0) + 0.5) / (n.sum() + 1)
        rate = (positives + SMOOTHING * everyone) / (n[:, None] + SMOOTHING)
        out[rows, :-1] = np.log(rate / everyone)[group[rows]]
        out[rows, -1] = np.log1p(n[group[rows]])
        n += np.bincount(group[rows], minlength=size)
        for action in range(labels.shape[1]):
            positives[:, action] += np.bincount(group[rows], labels[rows, action], size)
    return out


def dense(data, rows):
    """All dense values and dot products of rows, (rows, width), as our models have them."""
    from common.embedding import FeatureEmbedding, LookUp

    layer = FeatureEmbedding(LookUp.of(data), 1)
    parts = []
    for start in range(0, len(rows["day"]), 16384):
        names = layer.look_up.spec["inputs"]
        batch = layer.look_up({name: rows[name][start : start + 16384] for name in names})
        parts.append(layer(batch)[1].numpy())
    return np.concatenate(parts)


def columns_of(data, which):
    """The dense columns, `ours`, `simple` or `both`, of the training and the validation rows."""
    numbers = []
    if which != "simple":
        numbers.append([dense(data, data.train), dense(data, data.valid)])
    if which != "ours":
        numbers.append(simple_history(data))
    return [np.concatenate(parts, axis=1) for parts in zip(*numbers, strict=True)]


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


# ---- the peers


def lightgbm(peer, data, tasks, chosen, seed):
    """LightGBM, a model a task: (seconds, {task: logits}, the numbers of trees).

    chosen: settings; with "trees", {task: number}, nothing is stopped early.
    """
    import lightgbm

    train, valid, categories = columns_of_trees(data, chosen["columns"])
    settings = lightgbm_settings(chosen, len(train))
    logits = {}
    trees = {}
    seconds = 0.0
    for task in tasks:
        n_trees = chosen.get("trees", {}).get(task, TREES)
        model = lightgbm.LGBMClassifier(n_estimators=n_trees, random_state=seed, **settings)
        more = {"categorical_feature": categories}
        if "trees" not in chosen:
            stopping = lightgbm.early_stopping(30, first_metric_only=True, verbose=False)
            more |= {"eval_set": [(valid, data.valid[task])], "eval_metric": "auc"}
            more["callbacks"] = [stopping]
        since = time.perf_counter()
        model.fit(train, data.train[task], **more)
        seconds += time.perf_counter() - since
        trees[task] = model.best_iteration_ or n_trees
        logits[task] = log_odds(model.predict_proba(valid)[:, 1])
    return seconds, logits, {"trees": trees}


def columns_of_trees(data, which):
    """What `columns_of` gives and, behind it, the ids of the interactions; these columns' places.

    Such ids are few, as the device or the tab. Of users and videos trees can make nothing.
    """
    ids = [name for name, of in data.features.items() if of["kind"] == "id" and not of["table"]]
    parts = []
    for numbers, rows in zip(columns_of(data, which), (data.train, data.valid), strict=True):
        codes = [rows[name][:, None].astype(np.float32) for name in ids]
        parts.append(np.concatenate([numbers, *codes], axis=1))
    width = parts[0].shape[1]
    return *parts, list(range(width - len(ids), width))


def lightgbm_settings(chosen, n_rows):
    """LightGBM's own settings of what `search` chose."""
    share = min(0.8, ROWS_A_TREE / n_rows)
    settings = {"subsample": share, "subsample_freq": 1, "learning_rate": 0.05, "verbose": -1}
    ours = ("columns", "trees")
    return settings | {name: value for name, value in chosen.items() if name not in ours}


def deepctr(peer, data, tasks, chosen, seed):
    """DeepCTR's model with Adam and `fit`: (seconds, {task: logits}, the number of epochs)."""
    network, train, labels, score = deepctr_made(peer, data, tasks, chosen, seed)
    best = -1.0
    seconds = 0.0
    for epoch in range(1, chosen.get("epochs", EPOCHS) + 1):
        since = time.perf_counter()
        network.fit(train, labels, chosen.get("batch_size", 1024), verbose=0)
        seconds += time.perf_counter() - since
        found = score()
        auc = mean_of(data, found)
        if auc <= best and "epochs" not in chosen:
            break
        best, logits, epochs = auc, found, epoch
    return seconds, logits, {"epochs": epochs}


def deepctr_made(peer, data, tasks, chosen, seed):
    """What `fit` takes, and a function to {task: logits} of the validation rows.

    A compiled network of DeepCTR, its inputs, its labels.
    """
    import tensorflow as tf
    from deepctr.layers.utils import Linear

    if not issubclass(Linear, tf.keras.layers.Layer):  # two kinds of Keras would train in silence
        raise InputError("DeepCTR has found Keras 3, and needs tf_keras: install it in .peers.")
    tf.keras.utils.set_random_seed(seed)
    train, valid = (coded(data, rows) for rows in (data.train, data.valid))
    train["dense_values"], valid["dense_values"] = columns_of(data, chosen["columns"])
    network = deepctr_network(peer, data, tasks, chosen, train, seed)
    adam = tf.keras.optimizers.Adam(chosen.get("learning_rate", 0.001))
    network.compile(adam, "binary_crossentropy")
    labels = [data.train[task].astype(np.float32)[:, None] for task in tasks]

    def score():
        found = network.predict(valid, 16384, verbose=0)
        found = found if isinstance(found, list) else [found]
        return {task: log_odds(p[:, 0]) for task, p in zip(tasks, found, strict=True)}

    return network, train, labels, score


def deepctr_network(peer, data, tasks, chosen, train, seed):
    """DeepCTR's network of a peer, of the sizes of our defaults."""
    from deepctr import models
    from deepctr.feature_column import DenseFeat, SparseFeat, VarLenSparseFeat

    script = peer.rpartition(" ")[2]
    sizes = import_module(script).Settings()
    columns = []
    for name, values in train.items():
        n = data.meta["vocabularies"].get(data.features.get(name, {}).get("vocabulary"))
        column = SparseFeat(name, n, sizes.embedding_dim)
        if values.ndim > 1:
            column = VarLenSparseFeat(column, values.shape[1])
        columns.append(DenseFeat(name, values.shape[1]) if name == "dense_values" else column)
    more = {"l2_reg_embedding": chosen.get("l2", 1e-5), "dnn_dropout": chosen.get("dropout", 0.0)}
    more["seed"] = seed
    if script == "deepfm":
        more |= {"dnn_hidden_units": sizes.hidden, "l2_reg_linear": chosen.get("l2", 1e-5)}
        return models.DeepFM(columns, columns, **more)
    more |= {"task_types": ["binary" for _ in tasks], "task_names": tasks}
    more |= {"expert_dnn_hidden_units": (sizes.expert_dim,), "gate_dnn_hidden_units": ()}
    more |= {"tower_dnn_hidden_units": sizes.tower}
    if script == "mmoe":
        return models.MMOE(columns, num_experts=sizes.experts, **more)
    more |= {"specific_expert_num": sizes.own_experts[0], "num_levels": 1}
    return models.PLE(columns, shared_expert_num=sizes.shared_experts, **more)


def log_odds(p):
    return logit(np.clip(p.astype(np.float64), 1e-7, 1 - 1e-7))


def mean_of(data, logits):
    """Mean AUC over the tasks that have enough positives."""
    frequent = [task for task in logits if data.valid[task].sum() >= FEW]
    return mean_auc(score_tasks(data.valid, {task: logits[task] for task in frequent}))


# ---- the search, and the runs of its best


def trained(peer, folder, chosen, seed):
    """A peer's training in this process: (cost, {task: scores}, mean AUC, trees or epochs)."""
    data = load(folder)
    tasks = list(data.tasks)[: 1 if peer.endswith("deepfm") else None]
    way = lightgbm if peer == "LightGBM" else deepctr
    seconds, logits, length = way(peer, data, tasks, chosen, seed)
    scores = score_tasks(data.valid, logits, data.groups_of(data.valid))
    peak = results.peak_memory() / 1e6
    n_rows = len(data.train["day"]) * length.get("epochs", 1)
    cost = {"seconds": seconds, "rows_per_second": n_rows / seconds, "peak_mb": peak}
    return cost, scores, mean_of(data, logits), length


def drawn(peer):
    """BUDGET settings, the defaults and random ones, and those of EARLIER."""
    rng = np.random.default_rng(0)
    settings = [DEFAULTS]
    while len(settings) < BUDGET:
        space = SPACE[peer].items()
        chosen = {name: values[rng.integers(len(values))] for name, values in space}
        settings += [chosen] if chosen not in settings else []
    return settings + EARLIER.get(peer, [])


def searched():
    """The table of the search so far."""
    columns = ["data", "valid_day", "peer", "settings", "auc_mean", "seconds", "length"]
    return pd.read_csv(FOUND) if FOUND.exists() else pd.DataFrame(columns=columns)


def ranked(peer, name, day):
    """The rows of a peer's search on the data of this name, the best last. Raises InputError.

    day: the validation day of that search.
    """
    table = searched()
    table = table[(table["data"] == name) & (table["peer"] == peer) & (table["valid_day"] == day)]
    if not len(table):
        raise InputError(f"peers.csv has no search of {peer} on {name}, day {day}: make it first.")
    return table.sort_values("auc_mean")


def best_of(peer, name, day):
    """The best settings of that search, and the numbers of trees or epochs. Raises InputError."""
    row = ranked(peer, name, day).iloc[-1]
    return json.loads(row["settings"]) | json.loads(row["length"])


def search(folder, peers, after=None):
    """Try the settings of each peer that peers.csv lacks on this folder's data.

    after: the name of the data whose search has chosen which settings are tried; None for all.
    """
    meta = load(folder).meta
    where = {"data": meta["name"], "valid_day": meta["valid_day"]}
    for peer in peers:
        settings = drawn(peer)
        if after:
            found = ranked(peer, after, meta["valid_day"])["settings"]
            settings = [json.loads(text) for text in found[: -HALVED - 1 : -1]]
        for chosen in settings:
            row = where | {"peer": peer, "settings": json.dumps(chosen, sort_keys=True)}
            table = searched()
            if (table[list(row)] == list(row.values())).all(axis=1).any():
                continue
            cost, _, auc, length = apart(trained, peer, folder, chosen, 0)
            row |= {"auc_mean": round(auc, 5), "seconds": round(cost["seconds"], 1)}
            row["length"] = json.dumps(length)
            table = pd.concat([searched(), pd.DataFrame([row])])  # another search may have gone on
            with beside(FOUND) as place:
                table.to_csv(place, index=False, lineterminator="\n")
            print(peer, chosen, row["auc_mean"], length, flush=True)


def scores(folder, peers, rounds):
    """Put `rounds` runs of each peer with its best settings into results.csv, if it lacks them."""
    data = load(folder)
    common = {"data": data.meta["name"], "fingerprint": data.fingerprint}
    for seed, peer in itertools.product(range(rounds), peers):
        chosen = best_of(peer, data.meta["name"], data.meta["valid_day"] - 1)
        row = common | {"model": peer, "seed": str(seed)}
        row["settings"] = json.dumps({"peer": chosen}, sort_keys=True)
        table = results.read(folder).reindex(columns=list(row))
        if (table == list(row.values())).all(axis=1).any():
            continue
        cost, found, auc, _ = apart(trained, peer, folder, chosen, seed)
        row |= {"tasks": ",".join(found), **cost}
        results.add(folder, row | results.columns(found, data.tasks))
        print(peer, seed, f"{auc:.4f}", f"{cost['seconds']:.0f} s", flush=True)
    add_rates(folder, data)


def add_rates(folder, data):
    """Put the past rates of user, video and tab, multiplied, into results.csv: no learning."""
    _, valid = simple_history(data)
    actions = [
        name for name in (*data.meta["tasks"], *data.meta["more_tasks"]) if name in data.train
    ]
    width = len(actions[:6]) + 1
    logits = {
        task: sum(valid[:, group * width + actions.index(task)] for group in (0, 1, 3))
        for task in data.tasks
        if task in actions[:6]
    }
    found = score_tasks(data.valid, logits, data.groups_of(data.valid))
    row = {"data": data.meta["name"], "fingerprint": data.fingerprint, "seed": 0}
    row |= {"model": "past rate of user x video x tab", "tasks": ",".join(found)}
    row |= {"settings": json.dumps({"peer": {"columns": "simple"}})}
    row |= {f"{name}_{task}": found[task][name] for task in found for name in ("auc", "uauc")}
    results.add(folder, row)


# ---- other users of the day


def logits_of(model, folder, seeds):
    """[{task: logits of the validation rows}] of runs of a script or a peer, in this process."""
    data = load(folder)
    tasks = list(data.tasks)
    if model in SPACE:
        way = lightgbm if model == "LightGBM" else deepctr
        chosen = best_of(model, data.meta["name"], data.meta["valid_day"] - 1)
        return [way(model, data, tasks, chosen, seed)[1] for seed in seeds]
    script = import_module(model)
    settings = script.Settings(quiet=True)
    runs = []
    with tempfile.TemporaryDirectory() as settings.user_data:  # for checkpoints
        network = script.compiled_model(data, tasks, settings)
        for seed in seeds:
            script.train(network, data, settings, seed)
            runs.append(network.logits(data.valid))
    return runs


def auc_of_draws(labels, logits, times):
    """The AUC where row i comes times[d, i] times: (draws,)."""
    values, place = np.unique(logits, return_inverse=True)
    aucs = []
    for row in times:
        positive = np.bincount(place, row * labels, len(values))
        negative = np.bincount(place, row * (1 - labels), len(values))
        below = np.cumsum(negative) - negative / 2
        aucs.append(positive @ below / (positive.sum() * negative.sum()))
    return np.array(aucs)


def over_users(folder, peers, rounds):
    """Keep differences in AUC, the mean of `rounds` runs a model, as other users would have them.

    The users of the validation day are drawn with replacement, DRAWS times, each with all of its
    rows (the cluster bootstrap: Efron and Tibshirani, 1993); low and high hold 95 % of the draws.
    """
    data = load(folder)
    rows = data.valid
    users, place = np.unique(rows[data.meta["group"]], return_inverse=True)
    times = np.random.default_rng(0).multinomial(len(users), [1 / len(users)] * len(users), DRAWS)
    times = np.concatenate(
        [np.ones((1, len(rows["day"]))), times[:, place]]
    )  # first the day itself
    tasks = [task for task in data.tasks if rows[task].sum() >= FEW]
    found = {}
    for model in (*MULTI_TASK, *(peer for peer in peers if not peer.endswith("deepfm"))):
        aucs = [
            [auc_of_draws(rows[task], logits[task], times) for task in tasks]
            for logits in apart(logits_of, model, folder, range(rounds))
        ]
        found[model] = np.mean(aucs, axis=0)  # (tasks, 1 + draws)
        print(model, short(f"{found[model][:, 0].mean():.4f}"), flush=True)
    table = []
    for one, other in itertools.combinations(found, 2):
        if one in MULTI_TASK:
            gains = found[one] - found[other]
            for score, gain in zip((*tasks, "mean"), [*gains, gains.mean(axis=0)], strict=True):
                low, high = np.quantile(gain[1:], [0.025, 0.975])
                row = [data.meta["name"], data.meta["valid_day"], shown(one), shown(other), score]
                table.append([*row, gain[0], low, high, rounds, DRAWS, len(users)])
    table = pd.DataFrame(table, columns=OF_USERS)
    if USERS.exists():
        old = pd.read_csv(USERS)
        table = pd.concat([old[old["data"] != data.meta["name"]], table])
    with beside(USERS) as place:
        table.to_csv(place, index=False, float_format="%.5f", lineterminator="\n")


# ---- speed


def ours(model, folder, size, seed):
    """This project's training: {"rows/s": of the second epoch, "AUC": after the first}."""
    data = load(folder)
    tasks = list(data.tasks)[: 1 if model == "deepfm" else None]
    rate = 0.001 * (size / 1024) ** 0.5
    options = {"embedding_l2": 0.0, "dropout": 0.0, "quiet": True}
    script = import_module(model)
    settings = script.Settings(batch_size=size, epochs=1, learning_rate=rate, **options)
    trained_model = script.compiled_model(data, tasks, settings)
    with tempfile.TemporaryDirectory() as settings.user_data:  # for checkpoints
        script.train(trained_model, data, settings, seed)
    auc = mean_of(data, trained_model.logits(data.valid))
    batches = trained_model.batches(data.train, size, seed)
    since = time.perf_counter()
    trained_model.fit(batches, verbose=0, shuffle=False)
    return {"rows/s": len(data.train["day"]) / (time.perf_counter() - since), "AUC": auc}


def theirs(model, folder, size, seed):
    """DeepCTR's training: the same."""
    data = load(folder)
    tasks = list(data.tasks)[: 1 if model == "deepfm" else None]
    chosen = {"columns": "ours", "learning_rate": 0.001 * (size / 1024) ** 0.5}
    chosen |= {"l2": 0.0, "dropout": 0.0}
    made = deepctr_made(f"DeepCTR {model}", data, tasks, chosen, seed)
    network, train, labels, score = made
    network.fit(train, labels, size, verbose=0)
    auc = mean_of(data, score())
    since = time.perf_counter()
    network.fit(train, labels, size, verbose=0)
    return {"rows/s": len(data.train["day"]) / (time.perf_counter() - since), "AUC": auc}


def speed(folder, sizes, rounds, keep):
    """Measure rows per second of both at the sizes of a batch."""
    for model, size in itertools.product(("deepfm", "mmoe", "ple"), sizes):
        ways = {"ours": partial(apart, ours, model, folder, size)}
        ways["DeepCTR"] = partial(apart, theirs, model, folder, size)
        measure(f"{model}, {size}", ways, rounds, keep)


def time_to_score(source, peers, goals, day, rounds, keep):
    """Measure the seconds from the CSVs in `source` to the goals, as reach.py says.

    Ours beside each peer, by its defaults and by the settings that `search` chose for `day`.
    """
    import reach

    functions = {"DeepCTR mmoe": reach.deepctr, "LightGBM": reach.lightgbm}
    with tempfile.TemporaryDirectory() as folder:
        run("get_data.py", source, "--out", folder)
        name = load(folder).meta["name"]
    for peer in (peer for peer in functions if peer in peers):
        best = best_of(peer, name, day)
        best = {key: value for key, value in best.items() if key not in ("trees", "epochs")}
        cases = {"by default": DEFAULTS} | ({"as searched": best} if best != DEFAULTS else {})
        for case, chosen in cases.items():
            ways = {"ours": reach.from_csvs(reach.ours, source, goals)}
            ways["peer"] = reach.from_csvs(functions[peer], source, goals, chosen)
            measure(f"{peer} {case}", ways, rounds, keep)


def main(argv=None):
    """Make what the command names."""
    parser = Parser(__doc__)
    parser.add_argument("study", choices=["search", "scores", "users", "speed", "reach"])
    parser.add_argument("folder", nargs="+", help="folders of pickles; of CSVs for `reach`")
    parser.add_argument("--peers", default=",".join(SPACE), help="those that take part")
    parser.add_argument("--after", metavar="NAME", help="the data whose search chose the settings")
    parser.add_argument("--rounds", type=int, default=5, help="seeds")
    parser.add_argument("--batch-sizes", type=int, nargs="+", default=[1024, 10240])
    parser.add_argument("--keep", metavar="NAME", help="the table of the speeds in the record")
    parser.add_argument("--auc", type=float, default=0.935, help="to be reached: of the first task")
    parser.add_argument("--uauc", type=float, default=0.66, help="to be reached: weighted uAUC")
    parser.add_argument("--searched-day", type=int, default=13, help="of the settings, for `reach`")
    args = parser.parse_args(argv)
    if not PLACE.exists():
        words = ["pip", "install", "-q", "--no-deps", "--target", PLACE, *PACKAGES]
        subprocess.run([sys.executable, "-m", *words], check=True)
    peers = args.peers.split(",")
    for folder in args.folder:
        if args.study == "search":
            search(folder, peers, args.after)
        elif args.study == "scores":
            scores(folder, peers, args.rounds)
        elif args.study == "users":
            over_users(folder, peers, args.rounds)
        elif args.study == "speed":
            speed(folder, args.batch_sizes, args.rounds, args.keep)
        else:
            goals = args.auc, args.uauc
            time_to_score(folder, peers, goals, args.searched_day, args.rounds, args.keep)


if __name__ == "__main__":
    with user_errors():
        main()
