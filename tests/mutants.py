"""Mutation testing of the formulas: each is changed a little, and a test must fail. Run by hand, about five minutes.

    python tests/mutants.py [PART OF A FILE'S NAME]

Prints a line a mutant and how many were killed; the exit code is the number of those that no test noticed.
"""
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LEFT_OUT = shutil.ignore_patterns(".*", "user_data", "sample", "*.csv", "*.zip", "__pycache__")
FORMULAS, HISTORY = "tests/test_formulas.py", "tests/test_get_data.py -k history\\ or\\ taste\\ or\\ watch\\ or\\ cooccurrence\\ or\\ rare\\ or\\ pca\\ or\\ every_feature"

MUTANTS = {  # file: tests that must notice, then pairs of what stands there and what is put in its place
    "deepfm.py": (FORMULAS, [
        ("0.5 * ops.sum", "1.0 * ops.sum"), ("ops.square(total) - squares", "ops.square(total) + squares"), ("first + second + layers", "first + layers"),
        ("ops.square(x), ops.square(self.v)", "ops.square(x), self.v"), ("first = first + ops.sum(w, axis=1)", "first = first"),
        ("ops.sum(v, axis=1) + total", "ops.sum(v, axis=1)"), ("Constant(data.log_odds(task))", "Constant(0.0)"),
    ]),
    "FocalLoss.py": (FORMULAS, [
        ("(2 * label - 1) * logit", "(1 - 2 * label) * logit"), ("alpha, 1 - alpha", "1 - alpha, alpha"), ("alpha >= 0 else 1.0", "alpha > 1 else 1.0"),
        ("ops.exp(-gamma * ops.softplus(own))", "ops.exp(-gamma * ops.softplus(-own))"), ("exp(-gamma", "exp(gamma"), ("* ops.softplus(-own)", "* ops.softplus(own)"),
        ("(1 + cos(", "(1 - cos("), ("/ length)) / 2", "/ length))"), ("return lowest + ", "return "), ("while epochs >= length", "while epochs > length"),
        ("(gamma + 1) * logit", "gamma * logit"), ("log((1 - alpha) / alpha)", "0.0"), ("gamma * ops.softplus(z)", "ops.softplus(z)"),
    ]),
    "mmoe.py": (FORMULAS, [
        ("layers.Softmax(name", "layers.ReLU(name"), ("ops.expand_dims(gate, -1) * outputs", "outputs"), ("mixed(gate, shared)", "shared[:, 0]"),
        ("layers.ReLU()(layers", "(layers"), ("gate_logits[:, i]", "gate_logits[:, 0]"),
        ("first[:, i : i + 1] + y", "y"), ("first[:, i : i + 1] + y", "first[:, :1] + y"), ('kernel_initializer="zeros"', 'kernel_initializer="ones"'),
    ]),
    "ple.py": (FORMULAS, [
        ("seen = {task: [own[task], shared] for", "seen = {task: [own[tasks[0]], shared] for"), ("[*own.values(), shared]", "[shared]"), ("layers.Softmax(name", "layers.ReLU(name"),
        ("experts(inputs[task], n_own", "experts(inputs[SHARED], n_own"), ("(inputs[who]) for who, n", "(inputs[SHARED]) for who, n"), ("ops.sum(g * outputs", "ops.sum(outputs"),
        ("zip(weights, groups)", "zip(weights[::-1], groups)"), ("first[:, i : i + 1] + y", "y"), ("first[:, i : i + 1] + y", "first[:, :1] + y"), ('kernel_initializer="zeros"', 'kernel_initializer="ones"'),
    ]),
    "common/dropout.py": ("tests/test_formulas.py", [
        ("inputs / (1 - self.rate)", "inputs"), (">= round(self.rate", "< round(self.rate"), ("^ scrambled(first", "^ scrambled(0 * first"), ("(n + 1) // 2", "n // 2"), ("bits & 0xFFFF, tf.bitwise.right_shift(bits, 16)", "bits & 0xFFFF, bits & 0xFFFF"),
    ]),
    "common/embedding.py": ("tests/test_embedding.py", [
        ("tf.maximum(lengths, 1)", "tf.maximum(lengths, 2)"), ("* self.spec[\"tables\"][key] + rows[key]", "+ rows[key]"), ("own * other[:, :, None]", "own"),
        ("table[name][\"offsets\"] + before for", "table[name][\"offsets\"] for"), ("table[name][\"values\"] + starts[name]", "table[name][\"values\"]"),
    ]),
    "common/optimizer.py": ("tests/test_optimizer.py", [
        ("tf.sqrt(1 - self.beta_2**step)", "1.0"), ("/ (1 - self.beta_1**step)", ""), ("tf.square(gradient)", "gradient"), ("(1 - self.beta_1) * gradient", "gradient"),
        ("self.l2 * tf.gather", "2 * self.l2 * tf.gather"), ("scatter_sub", "scatter_add"), ("unsorted_segment_sum", "unsorted_segment_mean"),
    ]),
    "common/scoring.py": ("tests/test_scoring.py", [
        ("(starts + ends + 1) / 2", "starts + 1"), ("positives * (positives + 1) / 2", "positives * positives / 2"), ("(positives > 0) & (negatives > 0)", "positives > 0"),
        ("new_group | np.concatenate", "np.concatenate"), ("/ sum(weights.values())", ""), ("np.logaddexp(0.0, logits) - np.where", "np.logaddexp(0.0, logits) + np.where"),
        ("np.lexsort((scores, groups))", "np.lexsort((groups, scores))"),
    ]),
    "get_data.py": (HISTORY, [
        ("sum(axis=0, dtype=np.float64) + 0.5", "sum(axis=0, dtype=np.float64)"), ("positives + SMOOTHING * p", "positives"), ("(rows[:, None] + SMOOTHING)", "rows[:, None]"),
        ("(positives + m) / (expected + m)", "(positives + m) / expected"), ("np.log(rate / p)", "np.log(rate)"), ("day == today - 1", "day == today"),
        ("acted[some] - means[some] * viewed[some, None]", "acted[some]"), ("spreads = np.sqrt(", "spreads = ("), ("[:, :, None] * scale", "[:, :, None]"), ("known != MISSING", "known != 0"),
        ("total >= max(min_count", "total > max(min_count"), ("OTHER + rows_of(ids, vocabulary)", "rows_of(ids, vocabulary)"), ("1 + place", "place"), ("of_author @ expected[:, :-1], SHRINKAGE", "of_author @ expected[:, :-1], 0"), ("np.log1p(rows) / 10", "np.log1p(rows)"),
        ("feed_watched - expected[:, -1]", "feed_watched"), ("longer / (rows + SMOOTHING)\n    return", "longer / np.maximum(rows, 1)\n    return"), ("longer / (rows + SMOOTHING)])", "0 * longer])"),
        ("left -= (total / np.maximum(n, 1)).astype(np.float32)[of]", "pass"), ("squares / max(n.sum(), 1)", "squares / max(len(new), 1)"), ("squares += np.square", "squares = np.square"),
        ("np.float32(0.001) * play", "np.float32(1) * play"), ("new = np.flatnonzero(day == today)\n", "new = np.flatnonzero(day >= today)\n"),
        ("vectors[seen, 1:] * unit[seen, None]", "vectors[seen, 1:]"), ("vectors[seen, 1:]", "vectors[seen, :-1]"), (".clip(-3, 3)", ""), (".multiply(units[1])", ""),
        ("np.sqrt(max(pca.explained_variance_[0], 1e-12))", "1"),
    ]),
    "common/training.py": ("tests/test_formulas.py tests/test_training.py -k formula\\ or\\ batch\\ or\\ seven\\ or\\ cross\\ or\\ gamma", [
        ("(1 - 2 * label) * logit", "(2 * label - 1) * logit"), ("order[: -n_rows % batch_size]", "order[:0]"),
    ]),
    "common/recommender.py": ("tests/test_recommender.py tests/test_training.py -k recommender\\ or\\ seven\\ or\\ two_devices", [
        ("w * tf.reduce_mean", "tf.reduce_mean"), ('filled(found["owners"], more_items, -1)', 'filled(found["owners"], more_items, 0)'), ("filled(place, more_items, -1)", "filled(place, more_items, 0)"),
        ("part * to_rows", "to_rows"), ("[part * gradient", "[gradient"), ("tf.minimum(step + 1, last)", "step"),
    ]),
}


def killed(file, before, after, tests):
    """Whether the tests fail with `after` in the place of `before`."""
    text = (ROOT / file).read_text()
    if before not in text:
        raise SystemExit(f"{file} no longer holds {before!r}: mend MUTANTS.")
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder, "project")
        shutil.copytree(ROOT, copy, ignore=LEFT_OUT)
        (copy / file).write_text(text.replace(before, after))
        words = tests.replace("\\ ", "\0").split(" ")
        command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", *(word.replace("\0", " ") for word in words)]
        return subprocess.run(command, cwd=copy, capture_output=True).returncode == 1


def main(part=""):
    survived = n = 0
    for file, (tests, pairs) in MUTANTS.items():
        for before, after in pairs if part in file else ():
            noticed = killed(file, before, after, tests)
            n, survived = n + 1, survived + (not noticed)
            print(f"{'killed  ' if noticed else 'SURVIVED'}  {file}: {before}  ->  {after or '(nothing)'}", flush=True)
    print(f"{n - survived} of {n} mutants killed")
    return survived


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
