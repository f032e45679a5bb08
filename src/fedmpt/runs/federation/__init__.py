"""A run between machines: the plan that all agree on, what a site does with a message, and the coordinator.

It may import `runs` and all below it.
"""
