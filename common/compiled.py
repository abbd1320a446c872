"""What XLA compiled, kept in USER_DATA/.compiled: the next run need not compile.

TensorFlow reads such a file without looking at what is in it. So a list of hashes lies beside them,
and what is not as listed, as where a disk was full, is removed before it is read. A machine of
another processor or TensorFlow has files of its own. Where TF_XLA_FLAGS is set, nothing is kept.
"""

import hashlib
import json
import os
import platform
import shutil
import sys
from contextlib import suppress
from importlib import metadata
from pathlib import Path

from common.pickles import beside

ROOM = 50_000_000  # bytes without which nothing is kept: where it cannot be, training ends
LARGEST = 300_000_000  # bytes of all files; the oldest are removed
LIST = "hashes.json"
FLAGS = (
    "--tf_xla_persistent_cache_directory={} --tf_xla_persistent_cache_device_types=CPU,XLA_CPU_JIT"
)


def keep_programs(folder):
    """Keep programs below this folder: their place, None where they are not kept.

    Before the first is compiled: TensorFlow reads its flags once a process. Not on a Mac, where XLA
    is known to overflow the small stacks of threads as it reads programs of many parts.
    """
    if sys.platform == "darwin":
        return None
    place = Path(folder).resolve() / ".compiled" / machine()
    flags = FLAGS.format(place)
    if os.environ.get("TF_XLA_FLAGS", flags) != flags or set(str(place)) & set(" \t\n\"'"):
        return None
    try:
        place.mkdir(parents=True, exist_ok=True)
        remove_damaged(place)
        if shutil.disk_usage(place).free < ROOM:
            return None
    except OSError:  # a folder that cannot be written to
        return None
    os.environ["TF_XLA_FLAGS"] = flags
    return place


def machine():
    """A short name for what a compiled program depends on beside itself."""
    about = [platform.machine(), platform.system(), os.cpu_count(), metadata.version("tensorflow")]
    try:
        with open("/proc/cpuinfo") as file:
            told = ("flags", "Features", "CPU part")  # on x86, and on ARM
            about.append(next((line for line in file if line.startswith(told)), ""))
    except OSError:
        about.append(platform.processor())
    return hashlib.blake2b(json.dumps(about).encode(), digest_size=6).hexdigest()


def hash_of(path):
    return hashlib.blake2b(path.read_bytes(), digest_size=16).hexdigest()


def remove_damaged(place):
    """Remove the files that are not as they were listed."""
    try:
        listed = json.loads((place / LIST).read_text())
    except (OSError, ValueError):
        listed = {}
    for path in place.glob("*.pb"):
        if listed.get(path.name) != hash_of(path):
            path.unlink(missing_ok=True)


def list_programs(place):
    """List the files as they are now, the newest of LARGEST bytes, and remove the others.

    Where a file goes meanwhile or none can be written the list stays as it was: what it lacks is
    compiled anew.
    """
    size = 0
    hashes = {}
    with suppress(OSError):
        for path in sorted(place.glob("*.pb"), key=lambda path: path.stat().st_mtime, reverse=True):
            size += path.stat().st_size
            if size > LARGEST:
                path.unlink(missing_ok=True)
            else:
                hashes[path.name] = hash_of(path)
        with beside(place / LIST) as new:
            new.write_text(json.dumps(hashes))
