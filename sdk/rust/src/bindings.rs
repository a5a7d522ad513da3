//! What wit-bindgen makes of `/wit`. Hidden: nothing of it is part of the SDK's interface, and only `host` and the
//! export macros name it.
//!
//! The optional interfaces are bound as worlds of their own, so that each plugin exports exactly the interfaces it
//! implements: the linker keeps the description of a world only where its export macro is used.
#![allow(
    unsafe_code,
    missing_docs,
    unreachable_pub,
    unused_qualifications,
    clippy::all,
    clippy::allow_attributes_without_reason,
    reason = "generated code, which speaks the canonical ABI"
)]

/// All imports, of which a component has those that it uses, and the `picker` that every policy exports.
pub mod policy {
    wit_bindgen::generate!({
        path: "../../wit",
        world: "cluster-policy",
        pub_export_macro: true,
        export_macro_name: "export_policy",
    });
}

/// The optional `observer`.
pub mod observing {
    wit_bindgen::generate!({
        path: "../../wit",
        inline: "package trimtab:sdk-observing; world observing { export trimtab:policy/observer@0.1.1; }",
        pub_export_macro: true,
        export_macro_name: "export_observing",
    });
}

/// The optional `stateful`.
pub mod keeping {
    wit_bindgen::generate!({
        path: "../../wit",
        inline: "package trimtab:sdk-keeping; world keeping { export trimtab:policy/stateful@0.1.1; }",
        pub_export_macro: true,
        export_macro_name: "export_keeping",
    });
}
