"""What is published, and where: files are put beside nothing else, and what is there already is never replaced.

place.py     the one decision: what is missing, or that other content is there
hub.py       a repository of the hub
stored.py    a folder of an object store
weights.py   the model's files, in the type that they are read in
card.py      the model card and the data set card; pure
"""
