"""DeepCTR's DeepFM, MMOE or PLE, or LightGBM on dense columns, on arrays that benchmark.py wrote; runs in an environment of its own.

    TF_USE_LEGACY_KERAS=1 python tests/peer_worker.py MODEL BATCH_SIZE SEED ARRAYS.npz SPEC.json OUT.npz
"""
import json
import sys
import time

import numpy as np

WARM = 20  # steps before the clock starts


TREES = {"n_estimators": 200, "learning_rate": 0.05, "num_leaves": 31, "min_child_samples": 200, "subsample": 0.8, "subsample_freq": 1, "colsample_bytree": 0.8}


def lightgbm(seed, arrays, spec, n_columns):
    """LightGBM on the first dense columns, a model a task: training rows times tasks per second, {task: probabilities}."""
    from lightgbm import LGBMClassifier

    train, valid = (arrays[f"{split}_dense_values"][:, :n_columns] for split in ("train", "valid"))
    found, since = {}, time.perf_counter()
    for task in spec["tasks"]:
        found[task] = LGBMClassifier(**TREES, random_state=seed, verbose=-1).fit(train, arrays[f"train_{task}"])
    speed = len(train) / (time.perf_counter() - since)
    return speed, {task: trees.predict_proba(valid)[:, 1] for task, trees in found.items()}


def deepctr(model, batch_size, seed, arrays, spec):
    """An epoch of one of DeepCTR's models with Adam: training rows per second, {task: probabilities}."""
    import tensorflow as tf
    from deepctr.feature_column import DenseFeat, SparseFeat, VarLenSparseFeat, get_feature_names
    from deepctr.models import MMOE, PLE, DeepFM

    tf.keras.utils.set_random_seed(seed)
    dim, tasks = spec["embedding_dim"], spec["tasks"] if model != "deepfm" else spec["tasks"][:1]
    columns = [SparseFeat(name, size, dim) for name, size in spec["ids"].items()]
    columns += [VarLenSparseFeat(SparseFeat(name, size, dim), maxlen=length, combiner="mean") for name, (size, length) in spec["lists"].items()]
    columns += [DenseFeat("dense_values", spec["dense"])]
    plain = {"l2_reg_embedding": 0, "l2_reg_dnn": 0, "seed": seed}
    if model == "deepfm":
        network = DeepFM(columns, columns, dnn_hidden_units=spec["hidden"], dnn_dropout=spec["dropout"], l2_reg_linear=0, **plain)
    else:
        experts = {"num_experts": spec["experts"]} if model == "mmoe" else {"shared_expert_num": spec["shared"], "specific_expert_num": spec["own"], "num_levels": 1}
        network = (MMOE if model == "mmoe" else PLE)(
            columns, expert_dnn_hidden_units=(spec["expert_dim"],), tower_dnn_hidden_units=(spec["tower"],), gate_dnn_hidden_units=(),
            task_types=["binary"] * len(tasks), task_names=tasks, **experts, **plain,
        )
    network.compile(tf.keras.optimizers.Adam(spec["learning_rate"] * (batch_size / 1024) ** 0.5), "binary_crossentropy")
    names = get_feature_names(columns)
    rows = len(arrays[f"train_{tasks[0]}"]) // batch_size * batch_size
    order = np.random.default_rng(seed).permutation(rows)

    def some(part, split="train"):
        return {name: arrays[f"{split}_{name}"][part] for name in names}

    def fit(part):
        labels = [arrays[f"train_{task}"][part].astype(np.float32) for task in tasks]
        network.fit(some(part), labels if len(tasks) > 1 else labels[0], batch_size, epochs=1, verbose=0, shuffle=False)

    fit(order[: WARM * batch_size])
    since = time.perf_counter()
    fit(order[WARM * batch_size :])
    seconds = time.perf_counter() - since
    found = network.predict(some(slice(None), "valid"), 16384, verbose=0)
    found = found if len(tasks) > 1 else [found]
    return (rows - WARM * batch_size) / seconds, {task: values[:, 0] for task, values in zip(tasks, found)}


def main(model, batch_size, seed, arrays, spec, out):
    seed, spec, arrays = int(seed), json.load(open(spec)), dict(np.load(arrays))
    columns = {"lightgbm": spec["dense"], "lightgbm_history": spec["history"], "lightgbm_watch_times": spec["watch_times"]}.get(model)
    speed, found = lightgbm(seed, arrays, spec, columns) if columns else deepctr(model, int(batch_size), seed, arrays, spec)
    np.savez(out, rows_per_second=speed, **found)


if __name__ == "__main__":
    main(*sys.argv[1:])
