//! Imports whose answers and arguments are lent, where the generated bindings would copy them.
//!
//! Owns the two that nearly every request of a common policy asks for: the column of requests in flight, and the hash of a
//! field. Both answer as the generated ones do (`imports.rs`), which stay what is linked in all other places.

use std::sync::Arc;

use wasmtime::{
    StoreContextMut,
    component::{Linker, WasmStr},
};

use super::{bindings::trimtab::policy::request, changes::Known, imports::Guest, request::field_hash};
use crate::pool::View;

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

/// The column that was lent last.
#[derive(Default)]
pub(super) struct Column {
    numbers: Arc<[u32]>,
    /// The write of the view's up to which it is true; `None` if it is another view's.
    as_of: Option<u64>,
}

impl Column {
    /// Another view counts from now on.
    pub(super) fn forget(&mut self) {
        self.as_of = None;
    }

    /// Makes the numbers those of the view, by what was written since if that is still known.
    fn catch_up(numbers: &mut [u32], as_of: Option<u64>, view: &View) {
        let writes = view.writes();
        let is_known = |as_of: &u64| *as_of == writes || view.written(*as_of).is_some();
        let Some(as_of) = as_of.filter(is_known) else {
            return view.copy_active(numbers);
        };
        for index in (as_of..writes).filter_map(|write| view.written(write)) {
            if let Some(number) = numbers.get_mut(index) {
                *number = view.active(index);
            }
        }
    }
}

impl Guest {
    /// Requests in flight to each backend. What the last call got is used again, since the engine keeps nothing of it.
    fn active_column(&mut self) -> Arc<[u32]> {
        let len = self.snapshot.members.len();
        let hides_load = self.hides_load();
        let writes = self.view.writes();
        self.known = Known::until(writes);
        let as_of = self.column.as_of.take().filter(|_| !hides_load);
        let column = &mut self.column.numbers;
        match Arc::get_mut(column).filter(|column| column.len() == len) {
            Some(column) if hides_load => column.fill(0),
            Some(column) => Column::catch_up(column, as_of, &self.view),
            None if hides_load => *column = vec![0; len].into(),
            None => *column = self.view.active_column().into(),
        }
        self.column.as_of = Some(writes);
        self.column.numbers.clone()
    }
}
