"""Scores: metrics, context shift, calibration, and a method scored on stored features.

It may import `methods` and all below it.
"""
