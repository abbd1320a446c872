"""What memory a process may take: a run that cannot fit says so before it begins, instead of being killed in the middle."""
import math
import resource
from pathlib import Path

from common.pickles import InputError

GROUPS = Path("/sys/fs/cgroup")


def require(needed, reserved, what):
    """Raise InputError if a limit leaves less than `needed` bytes of memory to what is about to be done.

    Limits are those of `ulimit -v` and of a container (a Linux control group). The former counts addresses, of which a process
    reserves more than it uses: `reserved` bytes more.
    """
    in_use = _of_status("VmSize")
    limit = resource.getrlimit(resource.RLIMIT_AS)[0]
    addresses = math.inf if limit == resource.RLIM_INFINITY else limit - in_use - reserved
    for left, by, total in ((addresses, "ulimit -v", needed + in_use + reserved), (left_by_groups(), "the container's limit", None)):
        if left < needed:
            remedy = f"allow {total / 1e9:.1f} GB by ulimit -v" if total else f"allow {(needed - left) / 1e9:.1f} GB more"
            raise InputError(f"{what} takes about {needed / 1e9:.1f} GB of memory, more than {by} leaves: {remedy}, or use fewer rows.")


def left_by_groups(listing="/proc/self/cgroup"):
    """Bytes that the control groups of this process, and those around them, leave; infinite without such a limit."""
    left = [math.inf]
    for line in Path(listing).read_text().splitlines() if Path(listing).exists() else ():
        _, kinds, path = line.split(":", 2)
        if kinds in ("", "memory"):  # version 2 of control groups, version 1
            top = GROUPS / kinds
            limit, usage, cache = (
                ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_cache") if kinds else ("memory.max", "memory.current", "file")
            )
            place = top / path.lstrip("/")
            for group in (place, *place.parents):
                try:
                    allowed = int((group / limit).read_text())
                    kept = dict(line.split() for line in (group / "memory.stat").read_text().splitlines())
                    left.append(allowed - int((group / usage).read_text()) + int(kept.get(cache, 0)))  # cached files give way
                except (OSError, ValueError):  # there is no such group to be seen, or its limit is "max"
                    pass
                if group == top:
                    break
    return min(left)


def ran_out():
    """The sentence for a MemoryError that came all the same."""
    return f"memory ran out after {_of_status('VmHWM') / 1e9:.1f} GB were taken: close other programs, allow more, or use fewer rows."


def _of_status(name):
    """A figure of /proc/self/status in bytes; 0 where there is no such file (macOS, which heeds no ulimit -v either)."""
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith(name + ":")), 0)
