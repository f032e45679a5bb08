"""Language models that are asked for texts: an OpenAI-compatible endpoint, a model file, or a person with a chat.

It may import `backbone` and the words and small tools at the top of the package.
"""
