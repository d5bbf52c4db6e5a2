"""A package that is called as another one that is installed."""
