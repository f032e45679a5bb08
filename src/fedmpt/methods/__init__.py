"""The methods, one file each, in a table by the name that ``--method`` takes.

It may import `conditions`, `data`, `backbone` and the words and small tools at the top of the package.
"""

from __future__ import annotations

from fedmpt.methods.base import Method, MethodConfig
from fedmpt.methods.class_vectors import ClassVectorsConfig
from fedmpt.methods.dualcoop import DualCoOpConfig
from fedmpt.methods.fedawa import FedAWAConfig
from fedmpt.methods.fedlgt import FedLGTConfig
from fedmpt.methods.fedmpt import FedMPTConfig
from fedmpt.methods.fedmvp import FedMVPConfig
from fedmpt.methods.fednca import FedNCAConfig
from fedmpt.methods.fedotp import FedOTPConfig
from fedmpt.methods.fedpgp import FedPGPConfig
from fedmpt.methods.fedtpg import FedTPGConfig
from fedmpt.methods.kgcoop import KgCoOpConfig
from fedmpt.methods.linear_probe import LinearProbeConfig
from fedmpt.methods.maple import MaPLeConfig
from fedmpt.methods.plot import PLOTConfig
from fedmpt.methods.poscoop import PosCoOpConfig
from fedmpt.methods.promptfl import PromptFLConfig
from fedmpt.methods.ram import RAMConfig
from fedmpt.methods.scpnet import SCPNetConfig
from fedmpt.methods.tcp import TCPConfig
from fedmpt.methods.zero_shot import ZeroShotConfig

METHODS: dict[str, type[MethodConfig]] = {
    config.name: config
    for config in (
        FedMPTConfig,
        PromptFLConfig,
        KgCoOpConfig,
        TCPConfig,
        FedTPGConfig,
        FedPGPConfig,
        FedAWAConfig,
        DualCoOpConfig,
        PosCoOpConfig,
        SCPNetConfig,
        MaPLeConfig,
        FedMVPConfig,
        RAMConfig,
        PLOTConfig,
        FedOTPConfig,
        FedLGTConfig,
        FedNCAConfig,
        ClassVectorsConfig,
        LinearProbeConfig,
        ZeroShotConfig,
    )
}

__all__ = ["METHODS", "Method", "MethodConfig"]
