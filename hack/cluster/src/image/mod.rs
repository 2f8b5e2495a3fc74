//! Writes container images as OCI layouts.
