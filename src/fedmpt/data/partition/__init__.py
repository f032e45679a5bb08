"""Federated settings: which client has which training images, saved in files and described in numbers.

It may import what all of `data` may.
"""

from __future__ import annotations

from fedmpt.data.partition.saved import load_partition, save_partition
from fedmpt.data.partition.settings import Partition, Setting, partition_split
from fedmpt.data.partition.statistics import PartitionStatistics, partition_statistics

__all__ = [
    "Partition",
    "PartitionStatistics",
    "Setting",
    "load_partition",
    "partition_split",
    "partition_statistics",
    "save_partition",
]
