"""The `federation` command: thin commands over the REST API, and the starters of the three processes."""
