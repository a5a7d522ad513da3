//! What `wit/` looks like from the host, generated. Nothing else may be here.

#![allow(
    missing_docs,
    clippy::all,
    reason = "generated from wit/, where the documentation is"
)]

// What every policy must have, and all that one may ask for.
wasmtime::component::bindgen!({
    path: "../wit",
    inline: "package trimtab:host; world policy { include trimtab:policy/cluster-policy@0.1.1; }",
    world: "trimtab:host/policy",
});
