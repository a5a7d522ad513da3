//! Whoever needs a component's machine code asks here.
//!
//! Owns the order in which it is looked for: with another pool of this process, on disk, by compiling. Owns how many
//! compile at once, and that no two compile the same. It must not know policies' settings, pools or files' names.
//!
//! Invariant: the size of a stranger's component is looked at before anything else of it. Nothing here blocks the caller's thread.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, Mutex, PoisonError, Weak},
    time::Instant,
};

use tokio::sync::{Mutex as AsyncMutex, Semaphore};

use super::{
    Code, CodeCache, Compiler, Engine, Maker, Refusal,
    code::{MachineCode, digest},
    compile,
};
use crate::config::{self, show_size};

/// Code that nobody uses stays for so many loads: what is uploaded, and promoted a minute later, or rolled back.
const RECENT_MAX: usize = 8;
/// And not more than so many bytes of it.
const RECENT_BYTES_MAX: usize = 128 << 20;

/// Loads components.
#[derive(Debug)]
pub struct Loader {
    engine: Arc<Engine>,
    compiler: Compiler,
    cache: Option<Arc<CodeCache>>,
    places: Semaphore,
    known: Mutex<HashMap<Arc<str>, Arc<Place>>>,
    recent: Mutex<VecDeque<Arc<Code>>>,
}

/// Locked by whoever is loading the component.
type Place = AsyncMutex<Weak<Code>>;

impl Loader {
    /// Compiles so many at once as `[compile] processes` says.
    pub fn new(engine: Arc<Engine>, compiler: Compiler, cache: Option<CodeCache>, processes: usize) -> Self {
        Self {
            engine,
            compiler,
            cache: cache.map(Arc::new),
            places: Semaphore::new(processes),
            known: Mutex::default(),
            recent: Mutex::default(),
        }
    }

    /// The engine that the code is for.
    pub fn engine(&self) -> &Arc<Engine> {
        &self.engine
    }

    /// The code of a component. Dropping this ends a compile that nobody else waits for.
    ///
    /// # Errors
    /// Why there is none.
    pub async fn load(&self, wasm: &Arc<[u8]>, limits: &config::Compile) -> Result<Arc<Code>, Refusal> {
        if wasm.len() > limits.size_bytes {
            return Err(Refusal::TooLarge(show_size(limits.size_bytes as u64)));
        }
        self.load_builtin(wasm, limits).await
    }

    /// The same for a component that is part of this program, of whatever size.
    ///
    /// # Errors
    /// As [`Loader::load`].
    pub async fn load_builtin(
        &self,
        wasm: &Arc<[u8]>,
        limits: &config::Compile,
    ) -> Result<Arc<Code>, Refusal> {
        let hashed = wasm.clone();
        let digest: Arc<str> = blocking(move || Ok(digest(&hashed).into())).await?;
        let place = self.place(&digest);
        let mut place = place.lock().await;
        if let Some(code) = place.upgrade() {
            return Ok(code);
        }
        let code = Arc::new(self.find_or_compile(digest, wasm, limits).await?);
        *place = Arc::downgrade(&code);
        self.remember(&code);
        Ok(code)
    }

    /// The code of the component with this digest, if it was loaded and is still here. It may be larger than what is let in
    /// by now.
    pub fn loaded(&self, digest: &str) -> Option<Arc<Code>> {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let code = known.get(digest)?.try_lock().ok()?;
        code.upgrade()
    }

    /// Where the loading of this component is agreed upon.
    fn place(&self, digest: &Arc<str>) -> Arc<Place> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        // Those that nobody holds or uses; a lock that is held has another owner.
        known.retain(|_, place| {
            Arc::strong_count(place) > 1 || place.try_lock().is_ok_and(|code| code.strong_count() > 0)
        });
        known.entry(digest.clone()).or_default().clone()
    }

    fn remember(&self, code: &Arc<Code>) {
        let mut recent = self.recent.lock().unwrap_or_else(PoisonError::into_inner);
        recent.push_front(code.clone());
        let bytes = |recent: &VecDeque<Arc<Code>>| recent.iter().map(|code| code.code_bytes).sum::<usize>();
        while recent.len() > RECENT_MAX || bytes(&recent) > RECENT_BYTES_MAX {
            recent.pop_back();
        }
    }

    async fn find_or_compile(
        &self,
        digest: Arc<str>,
        wasm: &Arc<[u8]>,
        limits: &config::Compile,
    ) -> Result<Code, Refusal> {
        if let Some(cache) = self.cache.clone() {
            let (engine, digest, wasm) = (self.engine.clone(), digest.clone(), wasm.clone());
            let found = blocking(move || Ok(find(&engine, &cache, &digest, &wasm))).await?;
            if let Some(code) = found {
                return Ok(code);
            }
        }
        // Never closed.
        let place = self.places.acquire().await;
        let started = Instant::now();
        let machine_code = self.compile(wasm, limits).await?;
        drop(place);
        let (engine, cache, wasm) = (self.engine.clone(), self.cache.clone(), wasm.clone());
        blocking(move || {
            let file = cache.and_then(|cache| cache.write(&digest, &machine_code));
            let load = |code: MachineCode<'_>| {
                Code::load(&engine, digest.clone(), &wasm, code, Maker::Compiler, started)
            };
            // Of files kept for more than they may take together, the last one too may be gone again.
            let mapped = file.and_then(|file| load(MachineCode::File(&file)).ok());
            mapped.map_or_else(|| load(MachineCode::Bytes(&machine_code)), Ok)
        })
        .await
    }

    async fn compile(&self, wasm: &Arc<[u8]>, limits: &config::Compile) -> Result<Vec<u8>, Refusal> {
        match &self.compiler {
            Compiler::Child(program) => compile::compile_in_child(program, limits, wasm).await,
            Compiler::InProcess => {
                let (engine, wasm) = (self.engine.clone(), wasm.clone());
                blocking(move || compile::machine_code(&engine.inner, &wasm)).await
            }
        }
    }
}

/// Code on disk that this engine takes.
fn find(engine: &Engine, cache: &CodeCache, digest: &Arc<str>, wasm: &[u8]) -> Option<Code> {
    let started = Instant::now();
    let file = cache.find(digest)?;
    let code = MachineCode::File(&file);
    let loaded = Code::load(engine, digest.clone(), wasm, code, Maker::Cache, started);
    if let Err(refusal) = &loaded {
        tracing::warn!(%digest, %refusal, "compiled code is of no use; compiling again");
        cache.remove(digest);
    }
    loaded.ok()
}

/// Runs what takes long on a thread of its own.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Refusal> + Send + 'static,
) -> Result<T, Refusal> {
    let done = tokio::task::spawn_blocking(work).await;
    done.unwrap_or_else(|error| Err(Refusal::Compiler(error.to_string())))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::builtin_component;

    #[tokio::test]
    async fn what_is_loaded_is_found_by_its_digest() {
        let engine = Arc::new(Engine::new().unwrap());
        let loader = Loader::new(engine, Compiler::InProcess, None, 1);
        let wasm: Arc<[u8]> = builtin_component("round-robin").unwrap().into();
        let digest = digest(&wasm);
        assert!(loader.loaded(&digest).is_none());
        let code = loader
            .load_builtin(&wasm, &config::Compile::default())
            .await
            .unwrap();
        assert!(Arc::ptr_eq(&loader.loaded(&digest).unwrap(), &code));
        assert!(loader.loaded("another").is_none());
    }
}
