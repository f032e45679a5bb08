"""The engine between machines: NVFlare's kits, processes and messages, and nothing of methods or runs.

It may import what `federated` may, and is the only place that imports nvflare.
"""
