"""What can be said of conditions without a language model."""
