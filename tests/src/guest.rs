//! Policies written by hand, for what no honest compiler would produce.
//!
//! A [`Guest`] is a core module in text form whose functions can be replaced one by one; what is not replaced behaves.
//! Building embeds the world of `wit/` and makes a component of it, as the tools of real languages do.

use std::path::Path;

use wit_component::{ComponentEncoder, StringEncoding, embed_component_metadata};
use wit_parser::Resolve;

/// All that a policy may call.
const IMPORTS: &str = r#"(import "trimtab:policy/pool@0.1.1" "len" (func $len (result i32)))
  (import "trimtab:policy/pool@0.1.1" "active" (func $active (param i32) (result i32)))
  (import "trimtab:policy/pool@0.1.1" "active-total" (func $active_total (result i32)))
  (import "trimtab:policy/pool@0.1.1" "latency-us" (func $latency_us (param i32) (result i32)))
  (import "trimtab:policy/pool@0.1.1" "throughput" (func $throughput (param i32) (result i64)))
  (import "trimtab:policy/pool@0.1.1" "active-all" (func $active_all (param i32)))
  (import "trimtab:policy/pool@0.1.1" "latency-us-all" (func $latency_us_all (param i32)))
  (import "trimtab:policy/pool@0.1.1" "throughput-all" (func $throughput_all (param i32)))
  (import "trimtab:policy/pool@0.1.1" "delegate" (func $delegate (param i32 i32 i32)))
  (import "trimtab:policy/pool@0.1.1" "delegate-to" (func $delegate_to (param i32 i32 i32 i32 i32)))
  (import "trimtab:policy/request@0.1.1" "header" (func $header (param i32 i32 i32)))
  (import "trimtab:policy/request@0.1.1" "header-hash" (func $header_hash (param i32 i32 i32)))
  (import "trimtab:policy/request@0.1.1" "authority" (func $authority (param i32)))
  (import "trimtab:policy/request@0.1.1" "method" (func $method (param i32)))
  (import "trimtab:policy/request@0.1.1" "path" (func $path (param i32)))
  (import "trimtab:policy/request@0.1.1" "cookie" (func $cookie (param i32 i32 i32)))
  (import "trimtab:policy/request@0.1.1" "query" (func $query (param i32)))
  (import "trimtab:policy/request@0.1.1" "tried" (func $tried (param i32) (result i32)))
  (import "trimtab:policy/request@0.1.1" "reject" (func $reject (param i32)))
  (import "trimtab:policy/diagnostics@0.1.1" "log" (func $log (param i32 i32 i32)))
  (import "trimtab:policy/diagnostics@0.1.1" "note" (func $note (param i32 i32)))"#;
/// Where an answer is written, below everything else in memory.
const RESULT: u32 = 64;
/// Where the schema is.
const SCHEMA: u32 = 512;
/// Where [`Guest::text`] is.
pub const TEXT: u32 = 1024;
/// Where a list of backends may be put together.
const LIST: u32 = 1 << 16;
/// First byte of the heap.
const HEAP: u32 = 1 << 20;

/// A policy in the making. Bodies are WebAssembly instructions in text form.
///
/// `$picks` and `$updates` count the calls so far, the current one excluded; both are globals of type i32. The first
/// pick and the first update of an instance are those of its admission.
#[derive(Clone, Debug)]
pub struct Guest {
    /// `(param $json i32) (param $length i32) (result i32)`: see [`Guest::accept`].
    pub configure: String,
    /// `(param $snapshot i32)`
    pub update: String,
    /// `(param $key i64) (param $random i64) (param $hi i64) (param $lo i64) (param $attempt i32) (param $now i64)
    /// (result i32)`: the address of an option; `$some` and `$none` make one.
    pub pick: String,
    /// Its state, if it exports `stateful`.
    pub state: Option<State>,
    /// More imports, each in parentheses.
    pub imports: String,
    /// More functions, memories and so on.
    pub more: String,
    /// Runs when the module is instantiated.
    pub start: String,
    /// Text at [`TEXT`].
    pub text: String,
    /// Pages of memory at the start; all of the heap's allocations have to fit.
    pub pages: u32,
}

/// The bodies of `stateful`.
#[derive(Clone, Debug)]
pub struct State {
    /// What `schema` answers.
    pub schema: String,
    /// `(result i32)`: the address of pointer and length; see [`State::of`].
    pub export: String,
    /// `(param $state i32) (param $length i32) (result i32)`: as `configure`.
    pub import: String,
}

impl State {
    /// State of this many bytes, of whatever memory holds, which every version takes.
    #[must_use]
    pub fn of(schema: &str, bytes: u32) -> Self {
        Self {
            schema: schema.to_owned(),
            export: format!(
                "(i32.store (i32.const {RESULT}) (i32.const {TEXT}))
                 (i32.store offset=4 (i32.const {RESULT}) (i32.const {bytes}))
                 (i32.const {RESULT})"
            ),
            import: Guest::accept(),
        }
    }

    fn functions(&self) -> String {
        let Self {
            schema,
            export,
            import,
        } = self;
        let length = schema.len();
        format!(
            r#"(data (i32.const {SCHEMA}) "{schema}")
  (func (export "trimtab:policy/stateful@0.1.1#schema") (result i32)
    (i32.store (i32.const {RESULT}) (i32.const {SCHEMA}))
    (i32.store offset=4 (i32.const {RESULT}) (i32.const {length}))
    (i32.const {RESULT}))
  (func (export "trimtab:policy/stateful@0.1.1#export-state") (result i32) {export})
  (func (export "trimtab:policy/stateful@0.1.1#import-state")
    (param $state i32) (param $length i32) (result i32) {import})"#
        )
    }
}

impl Default for Guest {
    fn default() -> Self {
        Self {
            configure: Self::accept(),
            update: String::new(),
            pick: Self::any(),
            state: None,
            imports: String::new(),
            more: String::new(),
            start: String::new(),
            text: String::new(),
            pages: 64,
        }
    }
}

impl Guest {
    /// The answer `ok` of `configure`.
    #[must_use]
    pub fn accept() -> String {
        format!("(i32.store8 (i32.const {RESULT}) (i32.const 0)) (i32.const {RESULT})")
    }

    /// The answer `err` of `configure`, with [`Guest::text`] as its words.
    #[must_use]
    pub fn refuse(&self) -> String {
        format!(
            "(i32.store8 (i32.const {RESULT}) (i32.const 1))
             (i32.store offset=4 (i32.const {RESULT}) (i32.const {TEXT}))
             (i32.store offset=8 (i32.const {RESULT}) (i32.const {}))
             (i32.const {RESULT})",
            self.text.len()
        )
    }

    /// A pick of the backend with this index.
    #[must_use]
    pub fn always(index: u32) -> String {
        format!("(call $some (i32.const {index}))")
    }

    /// A pick that leaves the choice among all backends to this algorithm of the host. `text` has to be its name.
    #[must_use]
    pub fn delegate_all(&self) -> String {
        format!(
            "(local $index i32)
             (loop $next
               (i32.store (i32.add (i32.const {LIST}) (i32.shl (local.get $index) (i32.const 2))) (local.get $index))
               (local.set $index (i32.add (local.get $index) (i32.const 1)))
               (br_if $next (i32.lt_u (local.get $index) (call $len))))
             (call $delegate_to (i32.const {TEXT}) (i32.const {}) (i32.const {LIST}) (call $len) (i32.const {RESULT}))
             (i32.const {RESULT})",
            self.text.len()
        )
    }

    /// A pick at random.
    #[must_use]
    pub fn any() -> String {
        "(call $some (i32.wrap_i64 (i64.rem_u (local.get $random) (i64.extend_i32_u (call $len)))))"
            .to_owned()
    }

    /// A pick that runs `bad` always but in the first pick, with which the guest is admitted.
    #[must_use]
    pub fn after_admission(bad: &str) -> String {
        format!("(if (global.get $picks) (then {bad})) {}", Self::any())
    }

    /// A pick that runs `bad` from the second pick on, so that the guest is admitted, and every other time.
    #[must_use]
    pub fn every_other(bad: &str) -> String {
        format!(
            "(if (i32.and (global.get $picks) (i32.const 1)) (then {bad})) {}",
            Self::any()
        )
    }

    /// The module's text.
    #[must_use]
    pub fn module(&self) -> String {
        let Self {
            configure,
            update,
            pick,
            state,
            imports,
            more,
            start,
            text,
            pages,
        } = self;
        let state = state.as_ref().map(State::functions).unwrap_or_default();
        format!(
            r#"(module
  {IMPORTS}
  {imports}
  (memory (export "memory") {pages})
  (global $heap (mut i32) (i32.const {HEAP}))
  (global $picks (mut i32) (i32.const 0))
  (global $updates (mut i32) (i32.const 0))
  (data (i32.const {TEXT}) "{text}")
  (func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32)
    (local $at i32)
    (local.set $at (i32.and (i32.add (global.get $heap) (i32.const 7)) (i32.const -8)))
    (global.set $heap (i32.add (local.get $at) (local.get 3)))
    (local.get $at))
  (func $some (param i32) (result i32)
    (i32.store8 (i32.const {RESULT}) (i32.const 1))
    (i32.store offset=4 (i32.const {RESULT}) (local.get 0))
    (i32.const {RESULT}))
  (func $none (result i32)
    (i32.store8 (i32.const {RESULT}) (i32.const 0))
    (i32.const {RESULT}))
  {more}
  {state}
  (func $configure (export "trimtab:policy/picker@0.1.1#configure")
    (param $json i32) (param $length i32) (result i32)
    {configure})
  (func $do_update (param $snapshot i32) {update})
  (func (export "trimtab:policy/picker@0.1.1#update") (param $snapshot i32)
    (call $do_update (local.get $snapshot))
    (global.set $updates (i32.add (global.get $updates) (i32.const 1)))
    (global.set $heap (i32.const {HEAP})))
  (func $do_pick (param $key i64) (param $random i64) (param $hi i64) (param $lo i64)
    (param $attempt i32) (param $now i64) (result i32)
    {pick})
  (func (export "trimtab:policy/picker@0.1.1#pick") (param i64 i64 i64 i64 i32 i64) (result i32)
    (local $answer i32)
    (local.set $answer
      (call $do_pick (local.get 0) (local.get 1) (local.get 2) (local.get 3) (local.get 4) (local.get 5)))
    (global.set $picks (i32.add (global.get $picks) (i32.const 1)))
    (global.set $heap (i32.const {HEAP}))
    (local.get $answer))
  (func $start {start})
  (start $start))"#
        )
    }

    /// The component.
    ///
    /// # Panics
    /// When the text is no WebAssembly; its message points at the place.
    #[must_use]
    pub fn build(&self) -> Vec<u8> {
        encode(&self.core())
    }

    /// The core module without its world, which is what a compiler leaves that knows no components.
    ///
    /// # Panics
    /// As [`Guest::build`].
    #[must_use]
    pub fn bare(&self) -> Vec<u8> {
        wat::parse_str(self.module()).unwrap_or_else(|error| panic!("{error}"))
    }

    /// The core module with its world embedded, which is what `wit-bindgen` leaves.
    ///
    /// # Panics
    /// As [`Guest::build`].
    #[must_use]
    pub fn core(&self) -> Vec<u8> {
        let mut module = self.bare();
        let wit = Path::new(env!("CARGO_MANIFEST_DIR")).join("../wit");
        let mut resolve = Resolve::default();
        let (package, _) = resolve.push_dir(wit).expect("the contract");
        let world = if self.state.is_some() {
            "stateful-policy"
        } else {
            "policy"
        };
        let world = resolve.select_world(&[package], Some(world)).expect("the world");
        embed_component_metadata(&mut module, &resolve, world, StringEncoding::UTF8).expect("embedded");
        module
    }
}

fn encode(module: &[u8]) -> Vec<u8> {
    ComponentEncoder::default()
        .validate(true)
        .module(module)
        .and_then(|mut encoder| encoder.encode())
        .unwrap_or_else(|error| panic!("{error:#}"))
}
