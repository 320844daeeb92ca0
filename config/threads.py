"""How many threads each process computes with.

The learner stays on ONE thread: beside training on two cores, two threads each make a label take 0.9-1.8 s to absorb,
one thread each 0.5 s at most. The trainer gets what is left.
"""

import os
from collections.abc import Collection

LEARNER_QUEUE = "learner"
THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "VECLIB_MAXIMUM_THREADS")


class ThreadCountError(ValueError):
    """FORESIGHT_TRAINING_THREADS is not a number of threads."""


def usable_cores() -> int:
    """Return how many cores this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def training_threads() -> int:
    """Return FORESIGHT_TRAINING_THREADS, or all cores but one. Raises ThreadCountError."""
    asked = os.environ.get("FORESIGHT_TRAINING_THREADS", "")
    if not asked:
        return max(1, usable_cores() - 1)
    if not asked.isdecimal() or int(asked) < 1:
        raise ThreadCountError(f"FORESIGHT_TRAINING_THREADS is {asked!r}; it must be a number from 1 up.")
    return int(asked)


def threads_for(queues: Collection[str]) -> int:
    """Return how many threads a worker on these queues computes with."""
    return 1 if LEARNER_QUEUE in queues else training_threads()


def thread_environment(threads: int) -> dict[str, str]:
    """Return the variables that numerical libraries read once, when they are loaded."""
    return dict.fromkeys(THREAD_VARIABLES, str(threads))
