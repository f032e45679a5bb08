"""What one does with a trained checkpoint: labels for new images, and why the model says so.

It may import `runs` and all below it.
"""
