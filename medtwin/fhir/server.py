"""FHIR servers, out and in: send a folder of resources, fetch what a server has, write and start bulk imports.

The door of `medtwin.fhir.remote`. It is apart from `medtwin.fhir`, so that who reads files loads no HTTP.
"""

from medtwin.core.places import NetworkError
from medtwin.fhir.remote.bulk_export import fetch_export
from medtwin.fhir.remote.bulk_files import BulkFile, split_files
from medtwin.fhir.remote.bulk_import import BulkOutcome, BulkRequest, import_request, send_import
from medtwin.fhir.remote.fetch import fetch_server
from medtwin.fhir.remote.journal import Failure
from medtwin.fhir.remote.search import FetchReport, fetch_search
from medtwin.fhir.remote.send import Sender, SendReport, check_server, write_failures
from medtwin.fhir.remote.settings import AuthSettings, BulkSettings, ServerSettings, ServerSource
from medtwin.fhir.remote.store import ResourceStore

__all__ = [
    "AuthSettings",
    "BulkFile",
    "BulkOutcome",
    "BulkRequest",
    "BulkSettings",
    "Failure",
    "FetchReport",
    "NetworkError",
    "ResourceStore",
    "SendReport",
    "Sender",
    "ServerSettings",
    "ServerSource",
    "check_server",
    "fetch_export",
    "fetch_search",
    "fetch_server",
    "import_request",
    "send_import",
    "split_files",
    "write_failures",
]
