"""Which US Core 6.1.0 profiles a resource meets, so that `meta.profile` declares only those. See docs/us_core.md."""

from medtwin.fhir.profiles.check import PROFILES, met_profiles, profile_findings

__all__ = ["PROFILES", "met_profiles", "profile_findings"]
