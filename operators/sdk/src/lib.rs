//! trysail-sdk.
