//! Tests of the SDK as its users see it, in one binary.

mod apiserver;
mod informer;
mod queue;
