//! trysail-testkit.
