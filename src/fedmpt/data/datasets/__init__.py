"""The benchmark sets, one file each, and `scenes`, which the package draws.

It may import what all of `data` may, and the readers beside it in `data`.
"""
