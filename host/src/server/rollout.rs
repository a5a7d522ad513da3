//! Which version of its policy serves each pool.
//!
//! Owns what an operator does by the admin API: uploads, promotions, and going back. Compiling happens in tasks of their
//! own; what comes out of them is put into service by the control task, as every change is.
//!
//! Invariant: what the file says and what an operator chose are compared each time that either speaks (`choose`), and by
//! nothing else.
//! Read next: `policy/versions.rs` (the rule), `server/archive.rs` (what survives a restart).

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use tokio::sync::oneshot;

use super::{
    Control, StartError,
    archive::{Archive, Bytes, load},
    loading::{Loaded, is_same, refused},
    prepare::Service,
};
use crate::{
    config,
    control::{CanaryOrder, Denial, NewComponent, Promoted, Promotion, ShadowOrder, Uploaded},
    policy::{
        Candidate, Code, FileSays, Instance, Loader, Origin, Report as Admitted, Sought, Upload, Version,
        Versions,
    },
    pool::Pool,
    rollout::{Report, ShadowReport},
};

/// What is known of versions.
pub(super) struct Rollout {
    archive: Archive,
    versions: Versions,
    /// What the configuration in service says of each pool.
    says: BTreeMap<String, FileSays>,
    /// Code of the versions that an operator chose before the restart, until they serve.
    restored: BTreeMap<String, Arc<Code>>,
}

/// What is to serve a pool.
pub(super) struct Chosen {
    pub(super) candidate: Arc<Candidate>,
    says: FileSays,
    /// The version that an operator chose, while that counts.
    pinned: Option<Version>,
}

/// Work that a task has done, and what it was for.
pub(super) enum Step {
    /// A component is compiled and tried.
    Upload(
        Result<(Uploaded, Upload, Arc<[u8]>), Denial>,
        oneshot::Sender<Result<Uploaded, Denial>>,
    ),
    /// A version to be promoted is compiled.
    Promote {
        pool: String,
        version: Version,
        code: Result<Arc<Code>, Denial>,
        done: oneshot::Sender<Result<Promoted, Denial>>,
    },
    /// A version to be a shadow is compiled.
    Shadow {
        order: ShadowOrder,
        version: Version,
        code: Result<Arc<Code>, Denial>,
        done: oneshot::Sender<Result<ShadowReport, Denial>>,
    },
    /// A version to be put on trial is compiled.
    Canary {
        order: CanaryOrder,
        version: Version,
        code: Result<Arc<Code>, Denial>,
        done: oneshot::Sender<Result<Report, Denial>>,
    },
}

impl Rollout {
    /// What was kept, with the code of what an operator chose. What cannot be had any more is given up here, so that it
    /// does not keep the balancer from starting.
    pub(super) async fn restore(archive: Archive, loader: &Loader, limits: &config::Compile) -> Self {
        let mut versions = archive.restore().await;
        let pinned: Vec<_> = versions
            .pinned()
            .map(|(pool, version)| (pool.to_owned(), version.clone()))
            .collect();
        let mut restored = BTreeMap::new();
        for (pool, version) in pinned {
            match load(loader, limits, &archive.components, &version).await {
                Ok(code) => drop(restored.insert(pool, code)),
                Err(denial) => {
                    tracing::error!(pool, version = version.short(), %denial, "the version that was promoted cannot serve; the file's does");
                    versions.unpin(&pool);
                }
            }
        }
        Self {
            archive,
            versions,
            says: BTreeMap::new(),
            restored,
        }
    }

    /// Has the file decide for every pool.
    pub(super) fn unpin_all(&mut self) {
        for pool in std::mem::take(&mut self.restored).into_keys() {
            self.versions.unpin(&pool);
        }
    }

    /// Whether a start that failed may do better without what an operator chose before.
    pub(super) fn has_restored(&self) -> bool {
        !self.restored.is_empty()
    }

    /// For each pool the file's version, or the one that an operator chose in place of exactly that.
    pub(super) fn choose(
        &self,
        loaded: &Loaded,
        service: &Service,
        loader: &Loader,
    ) -> Result<BTreeMap<String, Chosen>, StartError> {
        let choose = |(pool, config): (&String, &Arc<config::Pool>)| {
            let file = &loaded.policies[&config.policy];
            let says = FileSays::new(&file.spec, &file.digest);
            let in_service = service.candidate(pool);
            let pinned = self.versions.in_place_of(pool, &says).cloned();
            let code = pinned.as_ref().and_then(|version| {
                let codes = in_service.map(|candidate| &candidate.code);
                let mut codes = codes.into_iter().chain(self.restored.get(pool));
                codes.find(|code| *code.digest == *version.digest)
            });
            let (Some(version), Some(code)) = (pinned, code) else {
                let chosen = Chosen {
                    candidate: file.clone(),
                    says,
                    pinned: None,
                };
                return Ok((pool.clone(), chosen));
            };
            let spec = with_settings(&file.spec, &version.config_json);
            let same = in_service.filter(|known| known.digest == code.digest && is_same(&known.spec, &spec));
            let candidate = match same {
                Some(same) => same.clone(),
                None => {
                    let admitted = Candidate::admit(loader.engine(), spec.clone(), code);
                    Arc::new(admitted.map_err(|refusal| refused(&spec, refusal))?)
                }
            };
            let chosen = Chosen {
                candidate,
                says,
                pinned: Some(version),
            };
            Ok((pool.clone(), chosen))
        };
        loaded.config.pools.iter().map(choose).collect()
    }

    /// Pools that an operator chose a version for, and whose file has spoken since.
    pub(super) fn overruled(&self, chosen: &BTreeMap<String, Chosen>) -> Vec<String> {
        let is_overruled =
            |(pool, chosen): &(&String, &Chosen)| chosen.pinned.is_none() && self.versions.is_pinned(pool);
        let overruled = chosen.iter().filter(is_overruled);
        let tell = |(pool, _): (&String, &Chosen)| {
            let version = self.versions.of(pool).first().map_or("", Version::short);
            format!(
                "pool {pool}: its policy was changed in the file, which serves now in place of the promoted version {version}"
            )
        };
        overruled.map(tell).collect()
    }

    /// Notes what a configuration has put into service.
    pub(super) async fn record(
        &mut self,
        chosen: BTreeMap<String, Chosen>,
        found: Vec<(String, Bytes)>,
        versions_max: usize,
    ) {
        let before = self.versions.clone();
        self.says.clear();
        for (pool, chosen) in chosen {
            let Chosen {
                candidate,
                says,
                pinned,
            } = chosen;
            let pin = pinned.is_some().then(|| says.clone());
            let version = pinned.unwrap_or_else(|| {
                let origin = Origin::of(&candidate.spec.source);
                Version::now(&candidate.code, origin, &candidate.spec.config_json)
            });
            self.versions.serve(&pool, version, pin);
            self.says.insert(pool, says);
        }
        self.restored.clear();
        let pools: BTreeSet<&str> = self.says.keys().map(String::as_str).collect();
        let mut trimmed = self.versions.clone();
        trimmed.trim(&pools, versions_max, u64::MAX);
        if trimmed != before {
            self.archive
                .keep(&mut self.versions, found, &pools, versions_max)
                .await;
        }
    }

    async fn keep(&mut self, found: Vec<(String, Bytes)>, versions_max: usize) {
        let pools: BTreeSet<&str> = self.says.keys().map(String::as_str).collect();
        self.archive
            .keep(&mut self.versions, found, &pools, versions_max)
            .await;
    }
}

impl Control {
    /// Compiles and tries a component, in a task of its own.
    pub(super) fn upload(
        &mut self,
        component: NewComponent,
        done: oneshot::Sender<Result<Uploaded, Denial>>,
    ) {
        let NewComponent { wasm, pool } = component;
        let (loader, limits) = (self.loader.clone(), self.service.config.compile.clone());
        let seat = pool.map(|name| self.seat(&name).ok_or_else(|| no_pool(&name)));
        self.steps.spawn(async move {
            let result = match seat.transpose() {
                Ok(seat) => try_component(&loader, &limits, wasm, seat).await,
                Err(denial) => Err(denial),
            };
            Step::Upload(result, done)
        });
    }

    /// The pool, and the limits and settings that a component gets there.
    fn seat(&self, pool: &str) -> Option<(Arc<Pool>, Arc<config::Policy>)> {
        let views = self.handle.pools();
        let view = views.iter().find(|view| view.pool.name() == pool)?;
        Some((view.pool.clone(), self.file_policy(pool)?.clone()))
    }

    pub(super) fn file_policy(&self, pool: &str) -> Option<&Arc<config::Policy>> {
        let config = &self.service.config;
        config.policies.get(&config.pools.get(pool)?.policy)
    }

    /// Finds and compiles a version, in a task of its own.
    pub(super) fn promote(&mut self, promotion: Promotion, done: oneshot::Sender<Result<Promoted, Denial>>) {
        let Promotion {
            pool,
            sought,
            config_json,
        } = promotion;
        let version = match self.find_version(&pool, &sought, config_json) {
            Ok(version) => version,
            // Whoever asked may have gone.
            Err(denial) => return drop(done.send(Err(denial))),
        };
        let load = self.loading(version.clone());
        self.steps.spawn(async move {
            Step::Promote {
                code: load.await,
                pool,
                version,
                done,
            }
        });
    }

    /// A version that can be had, with these settings or those that go with it.
    pub(super) fn find_version(
        &self,
        pool: &str,
        sought: &Sought,
        config_json: Option<String>,
    ) -> Result<Version, Denial> {
        let says = self.rollout.says.get(pool).ok_or_else(|| no_pool(pool))?;
        let found = self.rollout.versions.find(pool, sought, &says.config_json);
        let mut version = found.map_err(Denial::Unknown)?;
        if let Some(config_json) = config_json {
            version.config_json = config_json;
        }
        Ok(version)
    }

    /// Compiles a version, when it is polled.
    pub(super) fn loading(
        &self,
        version: Version,
    ) -> impl Future<Output = Result<Arc<Code>, Denial>> + Send + 'static + use<> {
        let (loader, limits) = (self.loader.clone(), self.service.config.compile.clone());
        let components = self.rollout.archive.components.clone();
        async move { load(&loader, &limits, &components, &version).await }
    }

    /// Does with the work of a task what it was for.
    pub(super) async fn carry_out(&mut self, step: Step) {
        match step {
            Step::Upload(result, done) => {
                let answer = match result {
                    Ok((mut uploaded, upload, wasm)) => {
                        let rollout = &mut self.rollout;
                        uploaded.known = rollout.versions.is_known(&upload.digest);
                        let digest = upload.digest.clone();
                        rollout.versions.upload(upload);
                        let versions_max = self.service.config.versions_kept;
                        rollout
                            .keep(vec![(digest, Bytes::Here(wasm))], versions_max)
                            .await;
                        self.publish_versions();
                        tracing::info!(version = uploaded.version, "component uploaded by an operator");
                        Ok(uploaded)
                    }
                    Err(denial) => Err(denial),
                };
                let _ = done.send(answer);
            }
            Step::Promote {
                pool,
                version,
                code,
                done,
            } => {
                let answer = match code {
                    Ok(code) => self.put_version(&pool, version, &code).await,
                    Err(denial) => Err(denial),
                };
                if let Err(denial) = &answer {
                    tracing::error!(pool, %denial, "version refused, the old one keeps serving");
                }
                let _ = done.send(answer);
            }
            Step::Shadow {
                order,
                version,
                code,
                done,
            } => {
                let answer = match code {
                    Ok(code) => self.begin_shadow(order, version, code).await,
                    Err(denial) => Err(denial),
                };
                let _ = done.send(answer);
            }
            Step::Canary {
                order,
                version,
                code,
                done,
            } => {
                let answer = match code {
                    Ok(code) => self.begin_canary(order, version, code).await,
                    Err(denial) => Err(denial),
                };
                let _ = done.send(answer);
            }
        }
    }

    pub(super) async fn put_version(
        &mut self,
        pool: &str,
        version: Version,
        code: &Arc<Code>,
    ) -> Result<Promoted, Denial> {
        let missing = || no_pool(pool);
        let current = self.service.candidate(pool).ok_or_else(missing)?.clone();
        let policy = self.file_policy(pool).ok_or_else(missing)?.clone();
        let says = self.rollout.says.get(pool).ok_or_else(missing)?.clone();
        let is_files_own = version.is_what(&says);
        let spec = with_settings(&policy, &version.config_json);
        let changed = current.digest != code.digest || current.spec.config_json != version.config_json;
        if changed {
            let told = |text| told(&version, pool, text);
            let candidate = Candidate::admit(self.loader.engine(), spec, code);
            let candidate = Arc::new(candidate.map_err(|refusal| told(refusal.to_string()))?);
            let prepared = self
                .service
                .with_policy(pool, candidate, self.workers.len())
                .await;
            let prepared = prepared
                .map_err(|error| told(reason(error)))?
                .ok_or_else(missing)?;
            self.install(prepared)
                .await
                .map_err(|error| told(error.to_string()))?;
        }
        let now = Version::now(code, version.origin, &version.config_json);
        self.rollout
            .versions
            .serve(pool, now, (!is_files_own).then_some(says));
        let versions_max = self.service.config.versions_kept;
        self.rollout.keep(Vec::new(), versions_max).await;
        self.publish_versions();
        let previous = current.digest.to_string();
        tracing::info!(pool, version = %code.version, previous = %current.version, pinned = !is_files_own, "version promoted by an operator");
        Ok(Promoted {
            pool: pool.to_owned(),
            digest: code.digest.to_string(),
            version: code.version.to_string(),
            previous,
            changed,
            pinned: !is_files_own,
        })
    }

    pub(super) fn publish_versions(&self) {
        let bytes_max = self.service.config.compile.size_bytes;
        self.handle.set_versions(self.rollout.versions.clone(), bytes_max);
    }
}

/// Limits and grants as the file has them, with other settings.
pub(super) fn with_settings(policy: &Arc<config::Policy>, config_json: &str) -> Arc<config::Policy> {
    if policy.config_json == config_json {
        return policy.clone();
    }
    Arc::new(config::Policy {
        config_json: config_json.to_owned(),
        ..(**policy).clone()
    })
}

/// What a pool's refusal says without the file's place, which has no part in it.
pub(super) fn reason(error: StartError) -> String {
    match error {
        StartError::Refused { refusal, .. } => refusal.to_string(),
        other => other.to_string(),
    }
}

pub(super) fn no_pool(pool: &str) -> Denial {
    Denial::Unknown(format!("no pool is called {pool:?}"))
}

/// Why a version is not for a pool.
pub(super) fn told(version: &Version, pool: &str, text: String) -> Denial {
    Denial::Refused(format!("version {} for pool {pool}: {text}", version.short()))
}

/// Compiles a component, and has it answer once if it is known for whom.
async fn try_component(
    loader: &Loader,
    limits: &config::Compile,
    wasm: Arc<[u8]>,
    seat: Option<(Arc<Pool>, Arc<config::Policy>)>,
) -> Result<(Uploaded, Upload, Arc<[u8]>), Denial> {
    let refused = |text: String| Denial::Refused(text);
    let code = loader.load(&wasm, limits).await;
    let code = code.map_err(|refusal| refused(refusal.to_string()))?;
    let report = Admitted::of(loader.engine(), &code).map_err(|refusal| refused(refusal.to_string()))?;
    let fits_pool = seat.as_ref().map(|(pool, _)| pool.name().to_owned());
    if let Some((pool, spec)) = seat {
        let candidate = Candidate::admit(loader.engine(), spec, &code);
        let candidate = candidate.map_err(|refusal| refused(refusal.to_string()))?;
        let tried = tokio::task::spawn_blocking(move || Instance::build(&candidate, &pool).map(drop));
        let tried = tried.await.map_err(|error| refused(error.to_string()))?;
        tried.map_err(|fault| refused(fault.to_string()))?;
    }
    let upload = Upload::now(&code);
    let uploaded = Uploaded {
        digest: code.digest.to_string(),
        version: code.version.to_string(),
        bytes: code.bytes,
        code_bytes: code.code_bytes,
        compile_ms: upload.compile_ms,
        compiled_by: code.maker.name(),
        known: false,
        fits_pool,
        report,
    };
    Ok((uploaded, upload, wasm))
}
