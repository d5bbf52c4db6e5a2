"""Models that the module itself has built."""

from common import Whole

model = Whole(32, 8, 3, 48, 2, 4, 96, 10)
models = {"small": model}


def get_model():
    return model
