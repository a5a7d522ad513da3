//! What `wit/` looks like from the host, generated. Nothing else may be here.

#![allow(
    missing_docs,
    clippy::all,
    reason = "generated from wit/, where the documentation is"
)]

wasmtime::component::bindgen!({ path: "../wit", world: "policy" });
