"""What people look at: plots, and the page of the demo.

It may import `inference` and all below it.
"""
