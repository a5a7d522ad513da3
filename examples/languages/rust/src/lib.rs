//! Sticky sessions: requests of one `x-session` keep to one backend, all others go to the least loaded for its weight.
//! The same in every folder beside this one; README.md there.
use trimtab_policy::prelude::*;

#[derive(Default)]
struct StickySessions;

impl Policy for StickySessions {
    fn pick(&mut self, request: &Request, pool: &Pool) -> Pick {
        match request.header("x-session") {
            Some(session) => sticky(&session, pool.ready_indices()).into(),
            None => least_loaded(pool).into(),
        }
    }
}

fn sticky(session: &str, ready: &[u32]) -> Option<u32> {
    let place = fnv1a(session) as usize % ready.len().max(1);
    ready.get(place).copied()
}

fn least_loaded(pool: &Pool) -> Option<Backend<'_>> {
    let active = pool.active_all();
    let load = |backend: &Backend<'_>| u64::from(active[backend.index()]);
    let weight = |backend: &Backend<'_>| u64::from(backend.weight());
    pool.ready()
        .min_by(|one, other| (load(one) * weight(other)).cmp(&(load(other) * weight(one))))
}

fn fnv1a(text: &str) -> u32 {
    text.bytes().fold(0x811c_9dc5, |hash, byte| {
        (hash ^ u32::from(byte)).wrapping_mul(16_777_619)
    })
}

policy!(StickySessions);

#[cfg(test)]
mod tests {
    use super::native;
    use trimtab_policy::testing::{Trial, pool, with_host};

    #[test]
    fn sessions_stay_and_others_go_where_there_is_room() {
        let mut trial = Trial::new(native(), pool(["a", "b", "c"]).down("b"));
        with_host(|host| host.active = vec![3, 0, 1]);
        assert_eq!(trial.pick(), Some("c"));
        with_host(|host| host.headers = vec![("X-Session".to_owned(), "ann".to_owned())]);
        let home = trial.pick().map(str::to_owned);
        with_host(|host| host.active = vec![0, 0, 100]);
        assert_eq!(trial.pick(), home.as_deref());
    }
}
