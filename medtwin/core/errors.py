"""The errors that a user can cause: each says what is wrong, where, and what to do. The CLI prints them bare."""


class MedtwinError(Exception):
    """A fault that the user can mend; the command line prints its message without a traceback."""


class SourceError(MedtwinError):
    """Input that cannot be read at all: a missing folder, an empty source, no permission."""


class DatasetError(MedtwinError):
    """A directory that is not a valid dataset."""


class OutputError(MedtwinError):
    """An output that cannot be written: busy, half-made by another configuration, or not ours."""


class ConfigError(MedtwinError):
    """A setting that does not exist or cannot be used."""


class ReleaseRefusedError(MedtwinError):
    """A dataset that may not leave: its gates failed, are missing, or it holds real patients."""
