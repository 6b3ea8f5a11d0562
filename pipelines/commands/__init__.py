"""The commands of ``genaiops``, by subject. Each module lists its own in ``COMMANDS``."""
