#!/bin/sh
# Builds the policy: by the rustup toolchain if it has the target, else by Debian's compiler for the web, which makes the
# standard library itself.
set -eu
cd "$(dirname "$0")"
target=wasm32-unknown-unknown
features="-C target-feature=+simd128"

if [ -d "$(rustc --print sysroot 2>/dev/null)/lib/rustlib/$target/lib" ]; then
    RUSTFLAGS="$features" exec cargo build --release --lib --target "$target"
fi
linker=$(command -v wasm-ld-22 || command -v wasm-ld || true)
if [ -x /usr/bin/cargo ] && [ -n "$linker" ] && [ -d "$(/usr/bin/rustc --print sysroot)/lib/rustlib/src/rust/library/std" ]; then
    # Without what rustup's own cargo may have set.
    unset RUSTUP_TOOLCHAIN CARGO RUSTC_WRAPPER LD_LIBRARY_PATH 2>/dev/null || true
    export RUSTC=/usr/bin/rustc RUSTC_BOOTSTRAP=1 RUSTFLAGS="$features"
    export CARGO_TARGET_WASM32_UNKNOWN_UNKNOWN_LINKER="$linker"
    exec /usr/bin/cargo build --release --lib --target "$target" -Zbuild-std=std,panic_abort
fi
echo "no Rust compiler for $target is installed" >&2
exit 1
