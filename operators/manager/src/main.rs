//! trysail-manager.

fn main() {}
