//! Builds and stamps the binaries that a cluster runs.
