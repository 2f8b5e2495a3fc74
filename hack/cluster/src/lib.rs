//! trysail-cluster.
