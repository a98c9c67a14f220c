"""atheris is there for `make atheris` alone."""

collect_ignore = ["guided.py"]
