//! Files that are no policies: each is refused with words that say what to do, and the old policy keeps serving.

use trimtab::policy::builtin_component;
use trimtab_tests::guest::Guest;

use super::Stage;

/// A component that is only an import and lets the host see which.
fn importing(name: &str) -> Vec<u8> {
    wat::parse_str(format!(
        "(component (import \"{name}\" (instance (export \"f\" (func)))))"
    ))
    .unwrap()
}

#[tokio::test]
async fn what_is_no_policy_is_refused_by_name() {
    let stage = Stage::with(&Guest::default()).await;
    let honest = Guest::default().build();
    let builtin = builtin_component("round-robin").unwrap();
    let cases: [(&str, Vec<u8>, &str); 13] = [
        ("empty file", Vec::new(), "not a WebAssembly component"),
        (
            "text file",
            b"#!/bin/sh\necho hello\n".to_vec(),
            "not a WebAssembly component",
        ),
        (
            "truncated",
            // Within its first section: at the end of one it would be a component, if an odd one.
            honest[..100].to_vec(),
            "not a WebAssembly component",
        ),
        (
            "truncated built-in",
            builtin[..builtin.len() - 1].to_vec(),
            "not a WebAssembly component",
        ),
        ("header only", b"\0asm".to_vec(), "not a WebAssembly component"),
        (
            "empty component",
            wat::parse_str("(component)").unwrap(),
            "does not export trimtab:policy/picker@0.1.0",
        ),
        (
            "foreign import",
            importing("acme:thing/api@1.0.0"),
            "imports acme:thing/api@1.0.0, which is not part of trimtab:policy@0.1",
        ),
        (
            "WASI",
            importing("wasi:cli/environment@0.2.0"),
            "imports wasi:cli/environment@0.2.0, and policies get no WASI",
        ),
        (
            "WASI: what to do",
            importing("wasi:random/random@0.2.0"),
            "componentize-py with --stub-wasi",
        ),
        (
            "import from a later version",
            wat::parse_str(
                "(component (import \"trimtab:policy/clock@0.9.0\" (instance (export \"f\" (func))))
                 (instance $i) (export \"trimtab:policy/picker@0.1.0\" (instance $i)))",
            )
            .unwrap(),
            "trimtab:policy/clock@0.9.0",
        ),
        (
            "module without a world",
            wat::parse_str("(module (memory (export \"memory\") 1))").unwrap(),
            "does not export trimtab:policy/picker@0.1.0",
        ),
        (
            "module for another host",
            wat::parse_str(
                "(module (import \"env\" \"abort\" (func))
                   (func (export \"trimtab:policy/picker@0.1.0#update\") (param i32)))",
            )
            .unwrap(),
            "imports from env, and a policy can use nothing but trimtab:policy/*",
        ),
        (
            "wrong types",
            wat::parse_str(
                "(component (instance $i) (export \"trimtab:policy/picker@0.1.0\" (instance $i)))",
            )
            .unwrap(),
            "does not fit the world `policy`",
        ),
    ];
    for (name, component, reason) in cases {
        let refusal = stage.refusal(&component).await;
        assert!(refusal.contains(reason), "{name}: {refusal}");
        assert!(
            refusal.contains("policy.wasm"),
            "{name} says which file: {refusal}"
        );
        assert!(refusal.contains("(line "), "{name} says which line: {refusal}");
    }
}

#[tokio::test]
async fn precompiled_code_is_refused() {
    let stage = Stage::with(&Guest::default()).await;
    // What a compiler for this machine would leave.
    let refusal = stage
        .refusal(b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0\x01\0\xf3\0")
        .await;
    assert!(refusal.contains("not a WebAssembly component"), "{refusal}");
}

#[tokio::test]
async fn a_core_module_with_its_world_inside_is_as_good_as_a_component() {
    let stage = Stage::with(&Guest::default()).await;
    stage.directory.replace("policy.wasm", Guest::default().core());
    let before = stage.balancer.view().deployment;
    stage.balancer.replace(&stage.setup).await.unwrap();
    let after = stage.balancer.view().deployment;
    assert_ne!(before.candidate.version, after.candidate.version);
    trimtab_tests::Load::run(stage.balancer.address, 2, 20)
        .await
        .expect_no_failure();
    assert_eq!(after.faults(), 0);
}

#[tokio::test]
async fn bytes_flipped_anywhere_never_harm_the_balancer() {
    let stage = Stage::with(&Guest::default()).await;
    let honest = Guest::default().build();
    // Every few bytes over the whole file, each by another mask: some mutants are still good policies.
    for (number, at) in (8..honest.len()).step_by(honest.len() / 40).enumerate() {
        let mut mutant = honest.clone();
        mutant[at] ^= 1 << (number % 8);
        stage.directory.replace("policy.wasm", &mutant);
        let _ = stage.balancer.replace(&stage.setup).await;
        trimtab_tests::Load::run(stage.balancer.address, 1, 5)
            .await
            .expect_no_failure();
    }
}
