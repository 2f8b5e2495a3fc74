//! trysail-e2e.
