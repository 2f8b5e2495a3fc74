//! trysail-workloads.
