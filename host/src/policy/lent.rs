//! Imports whose answers and arguments are lent, where the generated bindings would copy them.
//!
//! Owns the two that nearly every request of a common policy asks for: the column of requests in flight, and the hash of a
//! field. Both answer as the generated ones do (`imports.rs`), which stay what is linked in all other places.

use std::sync::Arc;

use wasmtime::{
    StoreContextMut,
    component::{Linker, WasmStr},
};

use super::{bindings::trimtab::policy::request, imports::Guest, request::field_hash};

/// By the names of the generated ones: under another version these would stand beside them, alone.
const POOL: &str = "trimtab:policy/pool@0.1.1";
const REQUEST: &str = "trimtab:policy/request@0.1.1";

/// Puts them in the place of the generated ones.
pub(super) fn add_to_linker(linker: &mut Linker<Guest>) -> wasmtime::Result<()> {
    linker.allow_shadowing(true);
    linker
        .instance(POOL)?
        .func_wrap("active-all", |mut store: StoreContextMut<'_, Guest>, (): ()| {
            Ok((store.data_mut().active_column(),))
        })?;
    linker.instance(REQUEST)?.func_wrap("header-hash", header_hash)?;
    linker.allow_shadowing(false);
    Ok(())
}

fn header_hash(
    mut store: StoreContextMut<'_, Guest>,
    (name,): (WasmStr,),
) -> wasmtime::Result<(Option<u64>,)> {
    let name = name.to_str(&store)?;
    if let Some(head) = store.data().open_head() {
        return Ok((field_hash(head, &name),));
    }
    let name = name.into_owned();
    Ok((request::Host::header_hash(store.data_mut(), name),))
}

impl Guest {
    /// Requests in flight to each backend. What the last call got is used again, since the engine keeps nothing of it.
    fn active_column(&mut self) -> Arc<[u32]> {
        let len = self.snapshot.members.len();
        let hides_load = self.hides_load();
        match Arc::get_mut(&mut self.column).filter(|column| column.len() == len) {
            Some(column) if hides_load => column.fill(0),
            Some(column) => self.view.copy_active(column),
            None if hides_load => self.column = vec![0; len].into(),
            None => self.column = self.view.active_column().into(),
        }
        self.column.clone()
    }
}
