"""Why a model's steps are not written by repetition."""


class NotPeriodicError(Exception):
    """The proof does not hold; the message says where, for people. The whole model is traced.

    Attributes:
        spent: whether the subject and its load were used, so that they must be built again.
    """

    spent = False
