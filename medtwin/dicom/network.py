"""PACS, out and in: send a folder by C-STORE or STOW-RS, fetch studies by QIDO-RS and WADO-RS.

The door of `medtwin.dicom.remote`. It is apart from `medtwin.dicom`, so that who reads files loads no network code.
"""

from medtwin.core.places import NetworkError
from medtwin.dicom.remote.fetch import FetchReport, fetch_studies
from medtwin.dicom.remote.instances import Failure, files_below
from medtwin.dicom.remote.send import Sender, SendReport, check_pacs, write_failures
from medtwin.dicom.remote.settings import AuthSettings, PacsSettings, WebSource

__all__ = [
    "AuthSettings",
    "Failure",
    "FetchReport",
    "NetworkError",
    "PacsSettings",
    "SendReport",
    "Sender",
    "WebSource",
    "check_pacs",
    "fetch_studies",
    "files_below",
    "write_failures",
]
