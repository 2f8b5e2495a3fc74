//! trysail-core.
