"""What is said about classes in words: texts in JSON files, shipped or a user's own."""
