//! Tests of the SDK as its users see it, in one binary.

mod apiserver;
mod apply;
mod client;
mod election;
mod gate;
mod informer;
mod queue;
mod wire;
