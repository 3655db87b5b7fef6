"""What the product costs, each figure beside that of a peer which does the same work in the same run.

`python -m bench` measures everything, `python -m bench --only NAME` one benchmark. Nothing in here is part of the
product, and nothing of it runs in the tests.
"""
