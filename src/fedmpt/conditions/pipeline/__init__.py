"""From combinations of labels to conditions, by a language model: describe, then summarise."""
