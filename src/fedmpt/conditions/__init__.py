"""What is said of classes in words: FedMPT's conditions and FedMVP's attributes, found, checked, scored.

It may import `llm`, `data`, `backbone` and the words and small tools at the top of the package, but no method.
"""
