//! trysail-cli.

fn main() {}
