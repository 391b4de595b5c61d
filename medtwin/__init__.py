"""medtwin: synthetic twins of a hospital's records and scans."""

__version__ = "0.1.0"
