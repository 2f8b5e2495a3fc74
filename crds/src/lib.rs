//! trysail-crds.
