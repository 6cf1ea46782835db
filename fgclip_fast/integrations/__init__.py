"""The model in other packages: one file a package, of its name, imported by whoever uses that package.

Nothing is imported here, since each file needs the package that it is for.
"""

__all__: list[str] = []
