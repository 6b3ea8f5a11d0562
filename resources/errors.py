"""The errors of this project.

Belongs here: exception types that more than one module raises or catches.
Does not belong here: messages; each is written where the mistake is found, naming file, field and remedy.
"""


class GenaiopsError(Exception):
    """Base of every error this project raises on purpose."""


class ConfigError(GenaiopsError):
    """A configuration file is wrong: the message names file, key, value, what is allowed and the nearest name."""


class PermanentError(GenaiopsError):
    """Trying again cannot help (bad input, bad key, unknown model)."""


class TransientError(GenaiopsError):
    """Trying again may help (rate limit, time-out, lost connection)."""


class LeaseHeldError(TransientError):
    """Another live run holds the lease on the same source or index."""


class StaleLeaseError(PermanentError):
    """This run's lease was taken over; its late write was refused."""


class DiskFullError(PermanentError):
    """A disk is full; what was half written was taken back, and the same work succeeds once there is space."""


class ModelResponseError(TransientError):
    """A model endpoint answered 200 with something unusable (count, order, dimension, NaN)."""


class BudgetExceededError(PermanentError):
    """The next call would spend more than the budget allows; it was not sent."""


class SnapshotNotFoundError(PermanentError):
    """The index has no such retained snapshot."""
