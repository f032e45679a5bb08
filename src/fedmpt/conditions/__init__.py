"""What is said about classes in words: conditions of FedMPT, attributes of FedMVP, in shipped files or one's own.

Here are the files and words; ``labels`` chooses what is described, ``pipeline`` has a language model describe and
summarise it, ``checks`` looks at the result.
"""
