"""Who computes the images of a run: processes of this machine, or a Ray cluster. The driver alone writes."""

from certimed.executors.driver import Executor, Lost, Work
from certimed.executors.local import LocalExecutor
from certimed.executors.ray_cluster import RayExecutor

__all__ = ["Executor", "LocalExecutor", "Lost", "RayExecutor", "Work"]
