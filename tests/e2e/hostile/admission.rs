//! Components that no compiler made, and components for another world: admission ends in a refusal, or in a policy that
//! is as good as any. The numbers are those of the list of hostile plugins that the project keeps.

use std::{
    sync::{Arc, OnceLock},
    time::Duration,
};

use trimtab::{
    config,
    policy::{Candidate, Engine, Refusal, builtin_component},
};
use trimtab_tests::guest::Guest;

fn admit(wasm: &[u8], wasi: config::Wasi) -> Result<Candidate, Refusal> {
    static ENGINE: OnceLock<Engine> = OnceLock::new();
    let engine = ENGINE.get_or_init(|| Engine::new().unwrap());
    let spec = config::Policy {
        tenant: None,
        grants: config::Grants::everything(),
        name: "hostile".into(),
        source: config::PolicySource::File("hostile.wasm".into()),
        memory_bytes: 8 << 20,
        deadline: Duration::from_millis(1),
        wasi,
        config_json: "{}".into(),
        line: None,
    };
    Candidate::compile(engine, Arc::new(spec), wasm)
}

/// Changes something somewhere, from a single bit to a piece from elsewhere.
fn mutate(good: &[u8], dice: &mut fastrand::Rng) -> Vec<u8> {
    let mut bytes = good.to_vec();
    for _ in 0..dice.usize(1..=3) {
        if bytes.is_empty() {
            break;
        }
        let at = dice.usize(0..bytes.len());
        let length = dice.usize(1..=64).min(bytes.len() - at);
        match dice.u8(0..8) {
            0..=2 => bytes[at] ^= 1 << dice.u8(0..8),
            // Values at which lengths, counts and indices overflow.
            3 => bytes[at] = *dice.choice(&[0, 1, 0x7f, 0x80, 0xff]).unwrap(),
            4 => bytes.truncate(at),
            5 => drop(bytes.drain(at..at + length)),
            6 => {
                let piece = bytes[at..at + length].to_vec();
                let to = dice.usize(0..bytes.len());
                drop(bytes.splice(to..to, piece));
            }
            _ => (0..length).for_each(|offset| bytes[at + offset] = dice.u8(..)),
        }
    }
    bytes
}

/// The mutants of one seed; gives how many were admitted all the same.
fn admit_mutants(seed: u64, count: usize) -> usize {
    let component = Guest::default().build();
    let core = Guest::default().core();
    let builtin = builtin_component("round-robin").unwrap();
    let mut dice = fastrand::Rng::with_seed(seed);
    let mut admitted = 0;
    for number in 0..count {
        let good: &[u8] = match number % 40 {
            0 => builtin,
            1..=15 => &core,
            _ => &component,
        };
        // A panic would end the test, and say where.
        admitted += usize::from(admit(&mutate(good, &mut dice), config::Wasi::None).is_ok());
    }
    admitted
}

#[test]
fn p25_ten_thousand_mutants_end_in_an_error_or_in_a_policy() {
    const SEED: u64 = 0x7472_696d_7461_6225;
    const MUTANTS: usize = 10_000;
    println!("seed {SEED:#x}");
    let threads: Vec<_> = (0..4)
        .map(|part| std::thread::spawn(move || admit_mutants(SEED + part, MUTANTS / 4)))
        .collect();
    let joined = threads.into_iter().map(|thread| thread.join());
    let admitted: usize = joined.map(|joined| joined.expect("no mutant may panic")).sum();
    println!("{admitted} of {MUTANTS} mutants are policies");
    assert!(admitted < MUTANTS / 2, "most mutations must hurt: {admitted}");
}

#[test]
fn p25_a_panic_of_the_compiler_is_a_refusal() {
    // Somewhere in here the code ends before it should, which the compiler of worlds does not expect.
    let good = Guest::default().core();
    // Without the types at its end it is a policy: the host knows them.
    let refusals = (0..good.len()).filter_map(|length| admit(&good[..length], config::Wasi::None).err());
    let panics = refusals
        .filter(|refusal| refusal.to_string().contains("panicked"))
        .count();
    println!("{panics} of {} lengths made the compiler panic", good.len());
}

#[test]
fn p25_a_component_cut_short_anywhere_is_refused() {
    let good = Guest::default().build();
    for length in (0..good.len()).step_by(7) {
        let Err(refusal) = admit(&good[..length], config::Wasi::None) else {
            // Only what says nothing about what it does may be missing at the end.
            assert_eq!(good[length], 0, "{length}: not a custom section");
            continue;
        };
        // What ends between two sections is a component, and lacks what comes at the end.
        let is_expected = matches!(
            refusal,
            Refusal::NotComponent(_) | Refusal::NoPicker | Refusal::Compile(_)
        );
        assert!(is_expected, "{length}: {refusal:?}");
    }
}

/// A component that imports an instance, and is otherwise what a policy is not.
fn importing(name: &str) -> Vec<u8> {
    wat::parse_str(format!(
        "(component (import \"{name}\" (instance (export \"f\" (func))))
           (instance $i) (export \"trimtab:policy/picker@0.1.0\" (instance $i)))"
    ))
    .unwrap()
}

#[test]
fn p26_imports_beyond_the_contract_are_refused_by_name() {
    for name in [
        "wasi:filesystem/preopens@0.2.0",
        "wasi:filesystem/types@0.2.6",
        "wasi:sockets/tcp@0.2.0",
        "wasi:sockets/instance-network@0.2.0",
        "wasi:http/outgoing-handler@0.2.0",
        "wasi:cli/environment@0.2.0",
        "acme:policy/pool@0.1.0",
        "trimtab:other/pool@0.1.0",
    ] {
        let refusal = admit(&importing(name), config::Wasi::None).map(drop).unwrap_err();
        assert!(
            matches!(refusal, Refusal::Wasi(_) | Refusal::UnknownImport(_)),
            "{refusal:?}"
        );
        assert!(refusal.to_string().contains(name), "{refusal}");
    }
}

#[test]
fn p26_an_empty_context_grants_no_network_and_no_invented_interface() {
    for name in [
        "wasi:http/outgoing-handler@0.2.0",
        "wasi:keyvalue/store@0.2.0",
        "trimtab:policy/files@0.1.0",
    ] {
        let refusal = admit(&importing(name), config::Wasi::Empty)
            .map(drop)
            .unwrap_err();
        let interface = name.split('@').next().unwrap();
        assert!(refusal.to_string().contains(interface), "{name}: {refusal}");
    }
}

#[test]
fn p26_another_world_or_version_is_refused() {
    let exporting = |name: &str| {
        wat::parse_str(format!(
            "(component (instance $i) (export \"{name}\" (instance $i)))"
        ))
        .unwrap()
    };
    for (component, reason) in [
        (
            exporting("trimtab:policy/picker@9.0.0"),
            "does not export trimtab:policy/picker@0.1.0",
        ),
        (
            exporting("trimtab:policy/picker"),
            "does not export trimtab:policy/picker@0.1.0",
        ),
        (
            exporting("wasi:http/incoming-handler@0.2.0"),
            "does not export trimtab:policy/picker@0.1.0",
        ),
        (
            exporting("trimtab:policy/picker@0.1.0"),
            "does not fit the world `policy`",
        ),
    ] {
        let refusal = admit(&component, config::Wasi::None).map(drop).unwrap_err();
        assert!(refusal.to_string().contains(reason), "{refusal}");
    }
}
