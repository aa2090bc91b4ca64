"""Where jobs are done: in processes of this machine, by themselves or with a planner that they share, or on a Ray."""

from specpolicy.cluster.local import Processes
from specpolicy.cluster.options import Local, Ray, read_options
from specpolicy.cluster.work import Crew, Work

__all__ = ["Crew", "Local", "Processes", "Ray", "Work", "read_options"]
