//! Tests of the SDK as its users see it, in one binary.

mod apiserver;
mod election;
mod informer;
mod queue;
mod wire;
