"""Why a model's decoding step cannot have a fixed shape."""


class UnsupportedStepError(Exception):
    """The reason, as the end of a sentence about the model; it samples in steps of growing shapes instead."""
