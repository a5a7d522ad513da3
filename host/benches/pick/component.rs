//! Components made here: what the way there and back costs, and what each import does.

use wit_component::{ComponentEncoder, StringEncoding};
use wit_parser::Resolve;

/// Calls in a pick; more than one so that they stand out, few enough for the memory of what lists they give.
pub(crate) const CALLS: usize = 16;

/// A function that a policy may call, as the guest's code has it.
pub(crate) struct Import {
    pub(crate) interface: &'static str,
    pub(crate) function: &'static str,
    signature: &'static str,
    arguments: &'static str,
}

const fn import(
    interface: &'static str,
    function: &'static str,
    signature: &'static str,
    arguments: &'static str,
) -> Import {
    Import {
        interface,
        function,
        signature,
        arguments,
    }
}

const NUMBER: &str = "(param i32) (result i32)";
const INDEX: &str = "(i32.const 1)";
/// Where what is larger than a number goes.
const INTO: &str = "(i32.const 1536)";
const GIVES: &str = "(param i32)";
const ASKS: &str = "(param i32 i32 i32)";
const HEADER: &str = "(i32.const 3072) (i32.const 10) (i32.const 1536)";

/// All but `reject`, after which there is no pick.
pub(crate) const IMPORTS: [Import; 21] = [
    import("pool", "len", "(result i32)", ""),
    import("pool", "active", NUMBER, INDEX),
    import("pool", "active-total", "(result i32)", ""),
    import("pool", "latency-us", NUMBER, INDEX),
    import("pool", "throughput", "(param i32) (result i64)", INDEX),
    import("pool", "usable", NUMBER, INDEX),
    import("pool", "active-all", GIVES, INTO),
    import("pool", "active-changes", "(result i64)", ""),
    import("pool", "latency-us-all", GIVES, INTO),
    import("pool", "throughput-all", GIVES, INTO),
    import(
        "pool",
        "delegate",
        ASKS,
        "(i32.const 3136) (i32.const 3) (i32.const 1536)",
    ),
    import(
        "pool",
        "delegate-to",
        "(param i32 i32 i32 i32 i32)",
        "(i32.const 3104) (i32.const 17) (i32.const 3136) (i32.const 3) (i32.const 1536)",
    ),
    import("request", "header", ASKS, HEADER),
    import("request", "header-hash", ASKS, HEADER),
    import("request", "method", GIVES, INTO),
    import("request", "authority", GIVES, INTO),
    import("request", "path", GIVES, INTO),
    import("request", "query", GIVES, INTO),
    import(
        "request",
        "cookie",
        ASKS,
        "(i32.const 3088) (i32.const 5) (i32.const 1536)",
    ),
    import("request", "tried", NUMBER, INDEX),
    import(
        "diagnostics",
        "note",
        "(param i32 i32)",
        "(i32.const 3088) (i32.const 5)",
    ),
];

/// A policy that always picks the first backend: what the way there and back costs by itself.
pub(crate) fn noop() -> Vec<u8> {
    build("", "")
}

/// The same, after calling an import [`CALLS`] times.
pub(crate) fn calling(import: &Import) -> Vec<u8> {
    let Import {
        interface,
        function,
        signature,
        arguments,
    } = import;
    let imported =
        format!("(import \"trimtab:policy/{interface}@0.1.1\" \"{function}\" (func $called {signature}))");
    let call = format!("(call $called {arguments})");
    let call = if signature.contains("result") {
        format!("(drop {call})")
    } else {
        call
    };
    build(&imported, &call.repeat(CALLS))
}

fn build(imports: &str, calls: &str) -> Vec<u8> {
    let text = format!(
        r#"(module
        {imports}
        (memory (export "memory") 16)
        (global $top (mut i32) (i32.const 4096))
        (func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32)
            (local $at i32)
            (local.set $at (i32.and (i32.add (global.get $top) (i32.const 15)) (i32.const -16)))
            (global.set $top (i32.add (local.get $at) (local.get 3)))
            (local.get $at))
        (func (export "trimtab:policy/picker@0.1.1#configure") (param i32 i32) (result i32) (i32.const 1024))
        (func (export "trimtab:policy/picker@0.1.1#update") (param i32) (global.set $top (i32.const 4096)))
        (func (export "trimtab:policy/picker@0.1.1#pick") (param i64 i64 i64 i64 i32 i64) (result i32)
            (global.set $top (i32.const 4096))
            {calls}
            (i32.const 2048))
        (data (i32.const 2048) "\01\00\00\00\00\00\00\00")
        (data (i32.const 3072) "user-agent")
        (data (i32.const 3088) "theme")
        (data (i32.const 3104) "least-connections")
        (data (i32.const 3136) "\00\00\00\00\01\00\00\00\02\00\00\00"))"#
    );
    let mut module = wat::parse_str(text).unwrap();
    let mut resolve = Resolve::default();
    let wit = concat!(env!("CARGO_MANIFEST_DIR"), "/../wit");
    let (package, _) = resolve.push_dir(wit).unwrap();
    let world = resolve.select_world(&[package], Some("policy")).unwrap();
    wit_component::embed_component_metadata(&mut module, &resolve, world, StringEncoding::UTF8).unwrap();
    ComponentEncoder::default()
        .validate(true)
        .module(&module)
        .unwrap()
        .encode()
        .unwrap()
}
